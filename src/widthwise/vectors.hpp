// Vectors of numbers, and memory that begins where one does.

#pragma once

#include <cstdint>
#include <cstring>
#include <new>
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
