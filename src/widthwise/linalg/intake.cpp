// Extremes of every column of rows that lie anywhere, in one pass. Each thread has columns of its own.

#include <limits>

#include "../vectors.hpp"

namespace {

constexpr int64_t ROWS = 4;  // that are looked at before their extremes are put down

template <class T, int64_t TALL>
void look(const T* const (&x)[TALL], int64_t first, int64_t last, T* __restrict low, T* __restrict high,
          T* __restrict flaw) {
    for (int64_t c = first; c < last; ++c) {
        T least = low[c], largest = high[c], off = 0;
        for (int64_t r = 0; r < TALL; ++r) {
            const T value = x[r][c];
            least = value < least ? value : least;
            largest = value > largest ? value : largest;
            off += value - value;  // NaN for what is not finite
        }
        low[c] = least, high[c] = largest, flaw[c] += off;
    }
}

template <class T>
void extremes(const T* x, int64_t stride, const int64_t* chosen, int64_t rows, int64_t columns, double* found,
              int64_t threads) {
    const auto at = [&](int64_t row) { return x + (chosen ? chosen[row] : row) * stride; };
    constexpr T far = std::numeric_limits<T>::infinity();
    Room<T> low(columns, far), high(columns, -far), flaw(columns);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t thread = 0; thread < threads; ++thread) {
        const int64_t first = columns * thread / threads, last = columns * (thread + 1) / threads;
        int64_t row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            look<T, ROWS>({at(row), at(row + 1), at(row + 2), at(row + 3)}, first, last, low.data(), high.data(),
                          flaw.data());
        for (; row < rows; ++row) look<T, 1>({at(row)}, first, last, low.data(), high.data(), flaw.data());
    }
    for (int64_t c = 0; c < columns; ++c) {
        found[c] = low[c] + flaw[c];
        found[columns + c] = high[c] + flaw[c];
    }
}

}  // namespace

// The least of every column, then the largest; NaN where a value is not finite.
#define EXPORT(T, name)                                                                                               \
    extern "C" void extremes_##name(const T* x, int64_t stride, const int64_t* chosen, int64_t rows, int64_t columns, \
                                    double* found, int64_t threads) {                                                 \
        extremes<T>(x, stride, chosen, rows, columns, found, threads);                                                \
    }

EXPORT(float, float32)
EXPORT(double, float64)
