/* Shrinking pictures to squares by the mean of the area that each pixel covers. */
#ifndef RLAGENTS_SHRINK_H
#define RLAGENTS_SHRINK_H

#include "nes.h"

/* How the pixels of a longer line are weighed into a shorter one. */
typedef struct {
    int first[WIDTH];           /* first pixel of each mean */
    int count[WIDTH];           /* pixels in it */
    float weights[WIDTH][WIDTH]; /* [mean][pixel of it], 0 beyond its count */
} Axis;

typedef struct {
    int top, rows;              /* rows of the picture that are kept */
    int size;                   /* of the square */
    bool whole;                 /* both factors are whole numbers */
    Axis across, down;
} Shrink;

EXPORT i64 shrink_size(void);
EXPORT i32 shrink_init(Shrink *shrink, i32 top, i32 bottom, i32 size);
EXPORT void shrink_picture(const Shrink *shrink, const u8 *picture, u8 *square);

#endif
