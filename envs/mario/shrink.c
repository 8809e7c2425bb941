/* The same numbers to the bit as OpenCV's resize with INTER_AREA: the same weights, multiplied and
 * added in the same order in single precision. */
#include "shrink.h"

#include <math.h>
#include <string.h>

/* Weigh `length` pixels into `size` means: mean i covers those from i * factor to (i + 1) * factor,
 * the first and the last of them in part. Parts below a thousandth are left out. */
static void make_axis(Axis *axis, int length, int size)
{
    const double factor = (double)length / size, least = 1e-3;
    memset(axis, 0, sizeof *axis);
    for (int mean = 0; mean < size; mean++) {
        double begin = mean * factor, end = begin + factor;
        double width = fmin(factor, length - begin);
        int last = (int)floor(end), whole;
        if (last > length - 1)
            last = length - 1;
        whole = (int)ceil(begin);
        if (whole > last)
            whole = last;
        int count = 0;
        axis->first[mean] = whole;
        if (whole - begin > least) {
            axis->first[mean] = whole - 1;
            axis->weights[mean][count++] = (float)((whole - begin) / width);
        }
        for (int pixel = whole; pixel < last; pixel++)
            axis->weights[mean][count++] = (float)(1.0 / width);
        if (end - last > least)
            axis->weights[mean][count++] = (float)(fmin(fmin(end - last, 1.0), width) / width);
        axis->count[mean] = count;
    }
}

i64 shrink_size(void)
{
    return sizeof(Shrink);
}

/* Say how pictures without `top` and `bottom` rows become squares; return 0 if the square would be
 * larger than what is left of them. */
i32 shrink_init(Shrink *shrink, i32 top, i32 bottom, i32 size)
{
    if (top < 0 || bottom < 0 || top + bottom >= HEIGHT || size < 1 ||
        size > HEIGHT - top - bottom)
        return 0;
    shrink->top = top;
    shrink->rows = HEIGHT - top - bottom;
    shrink->size = size;
    shrink->whole = WIDTH % size == 0 && shrink->rows % size == 0;
    make_axis(&shrink->across, WIDTH, size);
    make_axis(&shrink->down, shrink->rows, size);
    return 1;
}

/* Round to the nearest, ties to even: means of bytes, which are 0 to 255 and a little at most.
 * Added to this number, where neighbours are 1 apart, they are rounded by the processor. */
static u8 round_to_byte(float value)
{
    const float ones = 0x1.8p23f;
    float sum = value + ones;
    i32 bits;
    memcpy(&bits, &sum, sizeof bits);
    return (u8)bits;
}

static void shrink_whole(const Shrink *shrink, const u8 *rows, u8 *square)
{
    int size = shrink->size, wide = WIDTH / size, high = shrink->rows / size;
    float scale = 1.0f / (float)(wide * high);
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            int sum = 0;
            for (int row = 0; row < high; row++)
                for (int column = 0; column < wide; column++)
                    sum += rows[(y * high + row) * WIDTH + x * wide + column];
            square[y * size + x] = round_to_byte((float)sum * scale);
        }
}

/* Shrink one row of the picture. */
static void shrink_row(const Shrink *shrink, const u8 *row, float *means)
{
    const Axis *axis = &shrink->across;
    float pixels[2 * WIDTH]; /* weights of 0 may reach beyond the end */
    for (int x = 0; x < WIDTH; x++)
        pixels[x] = row[x];
    memset(pixels + WIDTH, 0, sizeof pixels / 2);
    for (int mean = 0; mean < shrink->size; mean++) {
        const float *first = pixels + axis->first[mean], *weights = axis->weights[mean];
        float sum = first[0] * weights[0];
        for (int i = 1; i < 4; i++) /* unrolled; most sizes need no more */
            sum += first[i] * weights[i];
        for (int i = 4; i < axis->count[mean]; i++)
            sum += first[i] * weights[i];
        means[mean] = sum;
    }
}

/* Shrink a picture of HEIGHT x WIDTH bytes to size x size. */
void shrink_picture(const Shrink *shrink, const u8 *picture, u8 *square)
{
    const u8 *rows = picture + shrink->top * WIDTH;
    if (shrink->whole) {
        shrink_whole(shrink, rows, square);
        return;
    }
    float means[WIDTH], sums[WIDTH];
    int shrunk = -1; /* `means` are those of this row */
    for (int y = 0; y < shrink->size; y++) {
        for (int i = 0; i < shrink->down.count[y]; i++) {
            int row = shrink->down.first[y] + i;
            float weight = shrink->down.weights[y][i];
            const u8 *pixels = rows + row * WIDTH;
            /* Many rows are those above again: sky, and all that is made of stripes. */
            if (shrunk < 0 || (row != shrunk && memcmp(pixels, rows + shrunk * WIDTH, WIDTH) != 0))
                shrink_row(shrink, pixels, means);
            shrunk = row;
            for (int x = 0; x < shrink->size; x++)
                sums[x] = i ? sums[x] + weight * means[x] : weight * means[x];
        }
        for (int x = 0; x < shrink->size; x++)
            square[y * shrink->size + x] = round_to_byte(sums[x]);
    }
}
