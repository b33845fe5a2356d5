// SPDX-License-Identifier: MIT
// Loops on oneTBB's threads: its simple partitioner with the variant's chunk as grain, or its automatic one.
#include "sample.h"
#include "work.h"

#include <cstdlib>
#include <oneapi/tbb.h>

namespace
{

struct body {
    const work *loop;

    void operator()(const tbb::blocked_range<size_t> &range) const
    {
        for (size_t i = range.begin(); i != range.end(); i++)
            loop->function(&loop->items[i], &loop->results[i]);
    }
};

void run_simple(void *, const work *loop)
{
    tbb::parallel_for(tbb::blocked_range<size_t>(0, loop->count, loop->chunk == 0 ? 1 : loop->chunk),
                      body{loop}, tbb::simple_partitioner());
}

void run_auto(void *, const work *loop)
{
    tbb::parallel_for(tbb::blocked_range<size_t>(0, loop->count), body{loop}, tbb::auto_partitioner());
}

void measure_simple(const call *call, sample *ret_sample)
{
    const runner runner = {run_simple, cpu_us_of_process, private_memory, nullptr};

    measure_work(call, &runner, ret_sample);
}

void measure_auto(const call *call, sample *ret_sample)
{
    const runner runner = {run_auto, cpu_us_of_process, private_memory, nullptr};

    measure_work(call, &runner, ret_sample);
}

void measure_chunk(const call *call, sample *ret_sample)
{
    if (std::strtoul(call->variant, nullptr, 10) == 0)
        measure_auto(call, ret_sample);
    else
        measure_simple(call, ret_sample);
}

const char *version()
{
    return TBB_VERSION_STRING;
}

} // namespace

int main(int argc, char **argv)
{
    static const subject subjects[] = {
        {"tbb", version, measure_chunk, work_chunks},
        {"tbb-simple", version, measure_simple, work_irregular},
        {"tbb-auto", version, measure_auto, work_irregular},
    };

    return bench_main(argc, argv, subjects, sizeof subjects / sizeof *subjects);
}
