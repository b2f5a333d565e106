// Vectors of numbers, and memory that begins where one does.

#pragma once

#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;  // of the widest vector
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

constexpr int64_t LINE = 64;  // bytes of a line of the cache

template <class V, class T>
inline V load(const T* from) {
    V found;
    std::memcpy(&found, from, sizeof(V));
    return found;
}

template <class V, class T>
inline void store(T* to, const V& given) {
    std::memcpy(to, &given, sizeof(V));
}

// Hold a vector in a register, where one is as long as that: otherwise GCC reads it again with every product.
template <class V>
inline void hold(V& given) {
#if defined(__x86_64__)
    if constexpr (sizeof(V) == BYTES) asm("" : "+v"(given));
#elif defined(__aarch64__)
    if constexpr (sizeof(V) == BYTES) asm("" : "+w"(given));
#endif
}

// Two vectors' numbers in turns: of both the first halves, or the second ones.
template <bool SECOND, class V, size_t... I>
inline V zipped(const V& a, const V& b, std::index_sequence<I...>) {
    constexpr int L = sizeof...(I), from = SECOND ? L / 2 : 0;
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, (int(I) / 2 + from + (I % 2 ? L : 0))...);
#else
    V found;  // slower than no vectors, and right
    for (int i = 0; i < L; i += 2) found[i] = a[from + i / 2], found[i + 1] = b[from + i / 2];
    return found;
#endif
}

// Images, `apart` numbers from one to the next, as [count][images]: a square of L x L at a time. Zipped with the ones
// half a square further, again and again, rows become columns.
template <int L, class T>
void lay(int64_t images, int64_t count, const T* from, int64_t apart, T* to) {
    typedef T V __attribute__((vector_size(L * sizeof(T))));
    constexpr std::make_index_sequence<L> all{};
    const int64_t whole = images / L * L;
    int64_t k = 0;
    for (; k + L <= count; k += L)
        for (int64_t n = 0; n < whole; n += L) {
            V square[L], next[L];
            for (int i = 0; i < L; i++) square[i] = load<V>(from + (n + i) * apart + k);
            for (int step = 1; step < L; step *= 2) {
                for (int i = 0; i < L / 2; i++) {
                    next[2 * i] = zipped<false>(square[i], square[i + L / 2], all);
                    next[2 * i + 1] = zipped<true>(square[i], square[i + L / 2], all);
                }
                std::memcpy(square, next, sizeof(square));
            }
            for (int i = 0; i < L; i++) store(to + (k + i) * images + n, square[i]);
        }
    for (int64_t i = 0; i < count; i++)
        for (int64_t n = i < k ? whole : 0; n < images; n++) to[i * images + n] = from[n * apart + i];
}

// Memory that begins with a line: a vector that lies in two lines is read twice.
template <class T>
struct Lined {
    typedef T value_type;

    Lined() = default;
    template <class U>
    Lined(const Lined<U>&) {}

    T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(LINE))); }
    void deallocate(T* given, size_t) { ::operator delete(given, std::align_val_t(LINE)); }
    bool operator==(const Lined&) const { return true; }
    bool operator!=(const Lined&) const { return false; }
};

template <class T>
using Room = std::vector<T, Lined<T>>;

}  // namespace
