/* SPDX-License-Identifier: MIT */
/*
 * mandelbrot: a picture of a small copy of the Mandelbrot set in its surroundings, computed row by row on all
 * CPUs.
 *
 * The rows lie in the arena: workers draw them in place, nothing is copied.  They cost very different amounts
 * of work, the ones through the black interior most, so a worker takes one row at a time.  --tint shows who
 * drew what.
 */
#include <brood.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "png.h"

enum { MAX_SIDE = 16384, MAX_WORKERS = 1024, MAX_ITERATIONS = 2000, SAMPLES = 2, TICK_MS = 100 };

static const double centre_x = 0.29254;
static const double centre_y = -0.014972;
static const double view_width = 0.00105;

/* Known to the workers because it is filled before the pool is created. */
static struct picture {
    uint32_t width;
    uint32_t height;
    int tint;
    uint8_t *pixels;             /* in the arena: width × height, numbers of colours */
    _Atomic uint32_t *rows_done; /* in the arena */
} picture = {.width = 800, .height = 600};

static const char help[] =
    "usage: mandelbrot [--size WxH] [--workers N] [--tint] [[-o] FILE]\n"
    "\n"
    "Computes a picture of the Mandelbrot set on worker processes and writes it as PNG.\n"
    "\n"
    "  --size WxH    pixels; default: 800x600\n"
    "  --workers N   processes that compute; default: the usable CPUs\n"
    "  --tint        colour each row by the worker that computed it\n"
    "  -o FILE       default: mandelbrot.png\n"
    "  --help        this text\n";

/* ------------------------------------------------------------------------------------ in the workers ---- */

/* How long the point takes to escape: from 0 to 0.86, or 1 when it does not.  How far it has flown in the
 * last step makes this smooth; the logarithm spreads the lower numbers. */
static double height_of_point(double cx, double cy)
{
    const double first = 33, last = 600, far = 65536;
    double x = 0, y = 0;
    int n = 0;

    while (n < MAX_ITERATIONS && x * x + y * y < far) {
        const double next_x = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = next_x;
        n++;
    }
    if (n == MAX_ITERATIONS)
        return 1;
    const double smooth = n + 1 - log2(log2(x * x + y * y) / 2);
    const double height = log(smooth / first) / log(last / first);
    return 0.86 * fmin(fmax(height, 0), 1);
}

/* The mean over SAMPLES × SAMPLES points. */
static double height_of_pixel(uint32_t column, uint32_t row)
{
    const double pixel = view_width / picture.width;
    const double left = centre_x - view_width / 2;
    const double top = centre_y + pixel * picture.height / 2;
    double sum = 0;

    for (int i = 0; i < SAMPLES * SAMPLES; i++) {
        const double dx = (i % SAMPLES + 0.5) / SAMPLES;
        const double dy = (double)(i / SAMPLES) / SAMPLES + 0.5 / SAMPLES;
        sum += height_of_point(left + pixel * (column + dx), top - pixel * (row + dy));
    }
    return sum / (SAMPLES * SAMPLES);
}

/* The task: a row's number in, the worker's out; the pixels go where they belong. */
static int draw_row(brood_task *task, const void *item, void *result)
{
    const uint32_t row = *(const uint32_t *)item;
    const uint32_t worker = brood_task_worker(task);
    uint8_t *pixels = picture.pixels + (size_t)row * picture.width;

    for (uint32_t column = 0; column < picture.width; column++) {
        const double height = height_of_pixel(column, row);
        const long colour = picture.tint ? 32 * (worker % 8) + lround(31 * height) : lround(255 * height);
        pixels[column] = (uint8_t)colour;
    }
    *(uint32_t *)result = worker;
    atomic_fetch_add_explicit(picture.rows_done, 1, memory_order_relaxed);
    return 0;
}

/* ------------------------------------------------------------------------------------------- colours ---- */

static const struct stop {
    double height;
    double red, green, blue;
} stops[] = {
    {0.00, 0, 7, 100},   {0.16, 32, 107, 203}, {0.42, 237, 255, 255},
    {0.64, 255, 170, 0}, {0.86, 60, 10, 0},    {1.00, 0, 0, 0},
};

static double blend(double from, double to, double part)
{
    return from + (to - from) * part;
}

static struct png_colour colour_of_height(double height)
{
    size_t i = 0;

    while (height > stops[i + 1].height)
        i++;
    const struct stop *a = &stops[i], *b = &stops[i + 1];
    const double part = (height - a->height) / (b->height - a->height);
    return (struct png_colour){(uint8_t)lround(blend(a->red, b->red, part)),
                               (uint8_t)lround(blend(a->green, b->green, part)),
                               (uint8_t)lround(blend(a->blue, b->blue, part))};
}

/* The same brightness in one of eight hues. */
static struct png_colour tinted_colour(double height, int hue)
{
    static const struct png_colour hues[8] = {
        {255, 92, 92},   {84, 160, 255}, {255, 200, 60}, {90, 220, 120},
        {200, 110, 255}, {60, 220, 220}, {255, 140, 50}, {255, 130, 200},
    };
    const struct png_colour colour = colour_of_height(height);
    const double light = (0.30 * colour.red + 0.59 * colour.green + 0.11 * colour.blue) / 255;

    return (struct png_colour){(uint8_t)lround(light * hues[hue].red),
                               (uint8_t)lround(light * hues[hue].green),
                               (uint8_t)lround(light * hues[hue].blue)};
}

static void fill_palette(struct png_colour ret_palette[256])
{
    for (int i = 0; i < 256; i++)
        ret_palette[i] = picture.tint ? tinted_colour(i % 32 / 31.0, i / 32) : colour_of_height(i / 255.0);
}

/* -------------------------------------------------------------------------------------- in the owner ---- */

static int fail(const char *what, const char *reason)
{
    fprintf(stderr, "mandelbrot: %s%s%s\n", what, *what == '\0' ? "" : ": ", reason);
    return 1;
}

static int wait_with_progress(brood_result *result)
{
    const int terminal = isatty(STDERR_FILENO);
    int err;

    while ((err = brood_result_wait(result, brood_after_ms(TICK_MS))) == -ETIMEDOUT) {
        if (terminal)
            fprintf(stderr, "\r%u of %u rows\033[K", atomic_load(picture.rows_done), picture.height);
    }
    if (terminal)
        fputs("\r\033[K", stderr);
    return err;
}

/* Fills ret_workers with the worker of each row. */
static int draw(brood_pool *pool, uint32_t *rows, uint32_t *ret_workers)
{
    const size_t bytes = picture.height * sizeof *ret_workers;
    brood_result *result = NULL;

    for (uint32_t row = 0; row < picture.height; row++)
        rows[row] = row;
    int err = brood_pool_map_async(pool, draw_row, rows, sizeof *rows, sizeof *ret_workers, picture.height,
                                   BROOD_MAP_OPTIONS(.chunk_items = 1), &result);
    if (err == 0)
        err = wait_with_progress(result);
    if (err == 0)
        err = brood_result_get(result, ret_workers, bytes, BROOD_FOREVER);
    if (err < 0)
        fail("", brood_error_text());
    brood_result_destroy(result);
    return err;
}

/* Takes the file. */
static int save(FILE *file, const char *path)
{
    struct png_colour palette[256];

    fill_palette(palette);
    int err = png_write(file, picture.pixels, picture.width, picture.height, palette);
    const long bytes = ftell(file);
    if (fclose(file) != 0 && err == 0)
        err = -errno;
    if (err < 0)
        return fail(path, strerror(-err));
    printf("%s: %ux%u, %ld KB\n", path, picture.width, picture.height, (bytes + 999) / 1000);
    return 0;
}

static void print_shares(const uint32_t *workers, uint32_t count, int64_t took_ns)
{
    printf("%.2f s with %u workers; rows per worker:", (double)took_ns / 1e9, count);
    for (uint32_t worker = 0; worker < count; worker++) {
        unsigned drawn = 0;
        for (uint32_t row = 0; row < picture.height; row++)
            drawn += workers[row] == worker;
        printf(" %u", drawn);
    }
    printf("\n");
}

/* That the file cannot be written is said before all is drawn. */
static int draw_and_save(brood_pool *pool, const char *path)
{
    FILE *file = fopen(path, "wb");
    uint32_t *rows = calloc(picture.height, sizeof *rows);
    uint32_t *workers = calloc(picture.height, sizeof *workers);
    const int64_t started_ns = brood_after_ms(0);
    int status = 1;

    if (file == NULL) {
        fail(path, strerror(errno));
    } else if (rows == NULL || workers == NULL) {
        fail("rows", strerror(ENOMEM));
    } else if (draw(pool, rows, workers) == 0) {
        print_shares(workers, brood_pool_workers(pool), brood_after_ms(0) - started_ns);
        status = save(file, path);
        file = NULL;
    }
    if (file != NULL)
        fclose(file);
    free(workers);
    free(rows);
    return status;
}

static int run(uint32_t workers, const char *path)
{
    brood_pool *pool = NULL;
    void *pixels = NULL, *rows_done = NULL;
    int status = 1;

    int err = brood_alloc((size_t)picture.width * picture.height, &pixels);
    if (err == 0)
        err = brood_alloc(sizeof *picture.rows_done, &rows_done);
    picture.pixels = pixels;
    picture.rows_done = rows_done;
    if (err == 0)
        err = brood_pool_create(BROOD_POOL_OPTIONS(.workers = workers), &pool);
    if (err == 0)
        status = draw_and_save(pool, path);
    else
        fail("", brood_error_text());
    brood_pool_destroy(pool);
    brood_free(rows_done);
    brood_free(pixels);
    return status;
}

/* ----------------------------------------------------------------------------------------- arguments ---- */

/* A number from 1 to `most` and where the text goes on after it; 0 when there is none. */
static uint32_t parse_number(const char *text, unsigned long most, char **ret_rest)
{
    const unsigned long number = strtoul(text, ret_rest, 10);

    return *text < '0' || *text > '9' || number > most ? 0 : (uint32_t)number;
}

static int parse_size(const char *text)
{
    char *rest;

    picture.width = parse_number(text, MAX_SIDE, &rest);
    if (picture.width == 0 || *rest != 'x')
        return -1;
    picture.height = parse_number(rest + 1, MAX_SIDE, &rest);
    return picture.height == 0 || *rest != '\0' ? -1 : 0;
}

/* Returns the status to end with, or -1 to go on. */
static int parse_arguments(int argc, char **argv, uint32_t *ret_workers, const char **ret_path)
{
    static const struct option options[] = {{"size", required_argument, NULL, 's'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"tint", no_argument, &picture.tint, 1},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    char *rest;
    int letter;

    while ((letter = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
        switch (letter) {
        case 0: /* --tint */
            break;
        case 'o':
            *ret_path = optarg;
            break;
        case 's':
            if (parse_size(optarg) < 0)
                return fail("--size", "wants WxH in pixels, each from 1 to 16384, as in 800x600");
            break;
        case 'w':
            *ret_workers = parse_number(optarg, MAX_WORKERS, &rest);
            if (*ret_workers == 0 || *rest != '\0')
                return fail("--workers", "wants a number from 1 to 1024");
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return fail("", "see mandelbrot --help");
        }
    }
    if (optind < argc)
        *ret_path = argv[optind++];
    return optind < argc ? fail(argv[optind], "one file is enough") : -1;
}

int main(int argc, char **argv)
{
    const char *path = "mandelbrot.png";
    uint32_t workers = 0; /* the pool's default */
    const int status = parse_arguments(argc, argv, &workers, &path);

    return status >= 0 ? status : run(workers, path);
}
