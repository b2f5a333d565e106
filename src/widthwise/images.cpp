// Bytes of images, [images][channels][height][width], on their way to a network.

#include <algorithm>
#include <cstdlib>

#include "vectors.hpp"

// One channel mirrored.
static void mirror(const uint8_t* __restrict from, int64_t height, int64_t width, uint8_t* __restrict to) {
    for (int64_t y = 0; y < height; y++, from += width, to += width)
        for (int64_t x = 0; x < width; x++) to[x] = from[width - 1 - x];
}

// One channel moved up and to the left: as one run of bytes, whose ends of rows are blackened then.
static void move(const uint8_t* from, int64_t height, int64_t width, int64_t up, int64_t left, uint8_t* to) {
    const int64_t all = height * width, first = std::max<int64_t>(0, -up), last = std::min(height, height - up);
    if (first >= last || std::abs(left) >= width) {
        std::memset(to, 0, all);
        return;
    }
    const int64_t shift = up * width + left, begin = std::max(first * width, -shift);
    std::memset(to, 0, first * width);
    std::memcpy(to + begin, from + begin + shift, std::min(last * width, all - shift) - begin);
    std::memset(to + last * width, 0, all - last * width);
    const int64_t black = left < 0 ? 0 : width - left, end = left < 0 ? -left : width;
    for (int64_t y = first; y < last; y++)
        for (int64_t x = black; x < end; x++) to[y * width + x] = 0;
}

// Every image moved by down - padding and right - padding pixels, black coming in, and mirrored if told so. `drawn` has
// of all images down, then right, then flip.
extern "C" void crop(const uint8_t* from, int64_t images, int64_t channels, int64_t height, int64_t width,
                     const int64_t* drawn, int64_t padding, uint8_t* to) {
    const int64_t all = height * width;
    std::vector<uint8_t> mirrored(all);
    for (int64_t n = 0; n < images; n++) {
        const int64_t up = drawn[n] - padding, left = drawn[images + n] - padding, flip = drawn[2 * images + n];
        for (int64_t c = 0; c < channels; c++, from += all, to += all) {
            if (flip) mirror(from, height, width, mirrored.data());
            move(flip ? mirrored.data() : from, height, width, up, flip ? -left : left, to);
        }
    }
}

static void scale(const uint8_t* from, int64_t count, float centre, float spread, float* to) {
    for (int64_t i = 0; i < count; i++) to[i] = (from[i] - centre) / spread;
}

// (number - centre) / spread, channel by channel; images are last in memory behind it if told so.
extern "C" void normalise(const uint8_t* from, int64_t images, int64_t channels, int64_t pixels, const float* centre,
                          const float* spread, int64_t last, float* to) {
    if (!last) {
        for (int64_t n = 0; n < images; n++)
            for (int64_t c = 0; c < channels; c++, from += pixels, to += pixels)
                scale(from, pixels, centre[c], spread[c], to);
        return;
    }
    constexpr int64_t together = 64;  // pixels: a line of every image
    std::vector<uint8_t> turned(together * images);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t p = 0, count; p < pixels; p += count) {
            count = std::min(together, pixels - p);
            lay<16>(images, count, from + c * pixels + p, channels * pixels, turned.data());
            scale(turned.data(), count * images, centre[c], spread[c], to);
            to += count * images;
        }
}
