// The inner loop of a matrix product: TALL by WIDE sums that stay in the registers.

#pragma once

#include "../vectors.hpp"

namespace {

#ifdef __AVX512F__
constexpr int64_t LANES = 8, TALL = 8;
#else
constexpr int64_t LANES = 4, TALL = 4;
#endif
constexpr int64_t VECTORS = 3, WIDE = LANES * VECTORS;
constexpr int64_t AHEAD = 32;  // turns: what is multiplied then is fetched, as no processor does over the end of a page

typedef double Vector __attribute__((vector_size(LANES * sizeof(double))));

inline Vector load(const double* from) { return load<Vector>(from); }

// sums += left' right: left (count, TALL), whose rows are APART numbers apart; right (count, WIDE).
template <int64_t APART>
inline void multiply(const double* left, const double* right, int64_t count, Vector (&sums)[TALL][VECTORS]) {
    for (int64_t k = 0; k < count; ++k) {
        Vector given[VECTORS];
        __builtin_prefetch(left + (k + AHEAD) * APART);
        for (int64_t v = 0; v < VECTORS; ++v) {
            __builtin_prefetch(right + (k + AHEAD) * WIDE + v * LANES);
            given[v] = load(right + k * WIDE + v * LANES);
            hold(given[v]);
        }
        for (int64_t r = 0; r < TALL; ++r)
            for (int64_t v = 0; v < VECTORS; ++v) sums[r][v] += left[k * APART + r] * given[v];
    }
}

// The same of sums that lie in memory: TALL rows of WIDE.
template <int64_t APART>
void add_product(const double* left, const double* right, int64_t count, double* there) {
    Vector sums[TALL][VECTORS];
    for (int64_t r = 0; r < TALL; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) sums[r][v] = load(there + r * WIDE + v * LANES);
    multiply<APART>(left, right, count, sums);
    for (int64_t r = 0; r < TALL; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) store(there + r * WIDE + v * LANES, sums[r][v]);
}

// Add the squares of some packed rows to those of their columns.
inline void add_squares(const double* rows, int64_t count, double* squares) {
    for (int64_t v = 0; v < WIDE; v += LANES) {
        Vector total = load(squares + v);
        for (int64_t r = 0; r < count; ++r) total += load(rows + r * WIDE + v) * load(rows + r * WIDE + v);
        store(squares + v, total);
    }
}

}  // namespace
