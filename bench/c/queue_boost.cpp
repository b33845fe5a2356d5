// SPDX-License-Identifier: MIT
// Boost.Interprocess's message_queue.  A batch is one message.
#include "sample.h"
#include "traffic.h"

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/version.hpp>
#include <string>
#include <unistd.h>

namespace
{

namespace ipc = boost::interprocess;

ipc::message_queue *queue;
std::string name;

void create(int, int, int batch)
{
    name = "brood-bench-" + std::to_string(getpid());
    ipc::message_queue::remove(name.c_str());
    queue = new ipc::message_queue(ipc::create_only, name.c_str(), QUEUED / batch, batch * sizeof(message));
    ipc::message_queue::remove(name.c_str()); // the mapping stays, and nothing is left behind
}

void destroy()
{
    delete queue;
}

void put(const message *messages, int count)
{
    queue->send(messages, count * sizeof *messages, 0);
}

int get(message *messages, int count)
{
    unsigned priority;
    ipc::message_queue::size_type bytes;

    queue->receive(messages, count * sizeof *messages, bytes, priority);
    return int(bytes / sizeof *messages);
}

void measure(const call *call, sample *ret_sample)
{
    static const transport transport = {create, destroy, nullptr, nullptr, put, get, nullptr, 1};

    measure_traffic(call, &transport, ret_sample);
}

const char *version()
{
    return BOOST_LIB_VERSION;
}

} // namespace

int main(int argc, char **argv)
{
    static const subject subjects[] = {{"boost", version, measure, traffic_all}};

    return bench_main(argc, argv, subjects, 1);
}
