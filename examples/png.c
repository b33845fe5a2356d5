/* SPDX-License-Identifier: MIT */
#include "png.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "deflate.h"

static uint32_t crc32(uint32_t crc, const uint8_t *data, size_t bytes)
{
    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320 & (0 - (crc & 1)));
    }
    return ~crc;
}

static void put_big_endian(uint8_t bytes[4], uint32_t number)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(number >> (24 - 8 * i));
}

/* Errors stay in the file's error flag. */
static void write_chunk(FILE *file, const char type[5], const uint8_t *data, size_t bytes)
{
    uint8_t length[4];
    uint8_t sum[4];

    put_big_endian(length, (uint32_t)bytes);
    put_big_endian(sum, crc32(crc32(0, (const uint8_t *)type, 4), data, bytes));
    fwrite(length, 1, sizeof length, file);
    fwrite(type, 1, 4, file);
    fwrite(data, 1, bytes, file);
    fwrite(sum, 1, sizeof sum, file);
}

static void write_header(FILE *file, uint32_t width, uint32_t height)
{
    uint8_t header[13] = {[8] = 8 /* bits */, [9] = 3 /* palette */};

    put_big_endian(header, width);
    put_big_endian(header + 4, height);
    fwrite("\x89PNG\r\n\x1a\n", 1, 8, file);
    write_chunk(file, "IHDR", header, sizeof header);
}

static void write_palette(FILE *file, const struct png_colour palette[256])
{
    uint8_t bytes[3 * 256];

    for (int i = 0; i < 256; i++) {
        bytes[3 * i] = palette[i].red;
        bytes[3 * i + 1] = palette[i].green;
        bytes[3 * i + 2] = palette[i].blue;
    }
    write_chunk(file, "PLTE", bytes, sizeof bytes);
}

/* Each row begins with the number of its filter: none. */
static uint8_t *filter_rows(const uint8_t *pixels, size_t width, size_t height)
{
    uint8_t *rows = malloc((width + 1) * height);

    for (size_t y = 0; rows != NULL && y < height; y++) {
        rows[y * (width + 1)] = 0;
        memcpy(rows + y * (width + 1) + 1, pixels + y * width, width);
    }
    return rows;
}

static int write_pixels(FILE *file, const uint8_t *pixels, size_t width, size_t height)
{
    const size_t bytes = (width + 1) * height;
    uint8_t *rows = filter_rows(pixels, width, height);
    uint8_t *stream = malloc(deflate_bound(bytes));
    size_t length = 0;

    if (rows != NULL && stream != NULL)
        length = deflate_zlib(rows, bytes, stream);
    if (length > 0)
        write_chunk(file, "IDAT", stream, length);
    free(stream);
    free(rows);
    return length > 0 ? 0 : -ENOMEM;
}

int png_write(FILE *file, const uint8_t *pixels, uint32_t width, uint32_t height,
              const struct png_colour palette[256])
{
    errno = 0;
    write_header(file, width, height);
    write_palette(file, palette);
    const int err = write_pixels(file, pixels, width, height);
    write_chunk(file, "IEND", (const uint8_t *)"", 0);
    if (err < 0)
        return err;
    if (fflush(file) != 0 || ferror(file))
        return errno != 0 ? -errno : -EIO;
    return 0;
}
