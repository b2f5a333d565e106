// Vectors that are full of one thin network's images: a tensor is [channels][height][width][images]. One thread; sums
// in an order that depends on the sizes alone.

#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "vectors.hpp"

namespace {

template <class T>
struct Vector;
template <>
struct Vector<float> {
    typedef float type __attribute__((vector_size(BYTES)));
};
template <>
struct Vector<double> {
    typedef double type __attribute__((vector_size(BYTES)));
};

// One image at a time: what is left where images do not fill a vector.
template <class T>
struct One {
    typedef T type __attribute__((vector_size(sizeof(T))));
};

template <class T, class V>
constexpr int lanes() {
    return sizeof(V) / sizeof(T);
}

struct Sizes {
    int64_t inputs, outputs, height, width, images, kernel, stride, padding;

    int64_t rows() const { return (height + 2 * padding - kernel) / stride + 1; }  // of the result
    int64_t columns() const { return (width + 2 * padding - kernel) / stride + 1; }
};

// A function of its own: within a larger one compilers keep its sums in memory, three times as slow.
#define APART __attribute__((noinline))

template <int N>
using Number = std::integral_constant<int, N>;

// Call f with a constant of 1 to 4: as many results as there are, four at most, so that their sums are registers.
template <class F>
inline void up_to_four(int64_t count, F f) {
    if (count >= 4)
        f(Number<4>());
    else if (count == 3)
        f(Number<3>());
    else if (count == 2)
        f(Number<2>());
    else
        f(Number<1>());
}

// The rows (or columns) of a source that one row of the result takes, and with which row of the kernel.
struct Line {
    int64_t from[3], tap[3];
    int count;
};

// Forward, row y of the result takes rows stride * y + tap - padding of the source. Backward, row y of the source was
// taken by every row r of the result with stride * r + tap - padding = y.
inline Line line(const Sizes& s, int64_t y, int64_t sources, bool back) {
    Line found{{}, {}, 0};
    for (int64_t k = 0; k < s.kernel; k++) {
        int64_t i = back ? s.kernel - 1 - k : k;  // so that rows of the source come in order
        int64_t r = back ? y + s.padding - i : y * s.stride + i - s.padding;
        if (back && (r < 0 || r % s.stride)) continue;
        if (back) r /= s.stride;
        if (r < 0 || r >= sources) continue;
        found.from[found.count] = r;
        found.tap[found.count++] = i;
    }
    return found;
}

constexpr int64_t CACHE = 400000;     // bytes of a source that are kept at a time
constexpr int64_t NEAR = 16384;       // bytes that are read again and again
constexpr int64_t BEYOND = 5 * LINE;  // bytes by which a row begins further than a power of 2, at which caches collide

// Numbers of a source where they lie: [channels][...], as many in each channel.
template <class T>
struct Plain {
    const T* numbers;
    int64_t plane;

    void put(int64_t channel, int64_t at, int64_t count, T* to) const {
        std::memcpy(to, numbers + channel * plane + at, count * sizeof(T));
    }
};

// Where rows lie: pixels of a row `step` apart; of those that are kept, row r in slot r % slots.
template <class T>
struct Places {
    const T* numbers;
    int64_t plane, row, step, slots;

    const T* at(int64_t channel, int64_t r) const { return numbers + channel * plane + (slots ? r % slots : r) * row; }
};

// The rows of a source that one row of the result takes, of all channels and some images: [channels][kernel][width]
// [together], row r in slot r % kernel. The source puts them there: `Plain` copies.
template <class T, class Source>
struct Rows {
    const Source& source;
    int64_t channels, width, images, slots, together, stride;
    Room<T> kept;
    std::vector<int64_t> there;

    Rows(const Source& source, int64_t channels, int64_t width, int64_t images, int64_t slots, int64_t least)
        : source(source), channels(channels), width(width), images(images), slots(slots), there(slots, -1) {
        int64_t fit = CACHE / int64_t(sizeof(T)) / (channels * slots * width) / least * least;
        int64_t all = (images + least - 1) / least * least;
        together = fit < least ? least : fit < all ? fit : all;
        stride = width * together + BEYOND / sizeof(T);
        kept.assign(channels * slots * stride, T(0));
    }

    int64_t plane() const { return slots * stride; }

    Places<T> places() const { return {kept.data(), plane(), stride, together, slots}; }

    void forget() { there.assign(slots, -1); }

    // Put a row there if it is not, and return where it begins.
    int64_t take(int64_t r, int64_t first, int64_t count) {
        int64_t begin = r % slots * stride, at = r * width * images + first;
        if (there[r % slots] == r) return begin;
        there[r % slots] = r;
        for (int64_t c = 0; c < channels; c++) {
            T* to = kept.data() + c * plane() + begin;
            if (count == images && count == together)
                source.put(c, at, width * images, to);
            else
                for (int64_t x = 0; x < width; x++) source.put(c, at + x * images, count, to + x * together);
        }
        return begin;
    }
};

constexpr int A = 2;  // vectors of images that are computed together

// sum[b] += weight of (source k, result b) * in[k], for K sources and B results.
template <class T, class V, int B, int K, int A>
inline void accumulate(const T* in, int64_t plane, const T* weight, int64_t of_source, int64_t of_result,
                       V (&sum)[B][A]) {
    for (int k = 0; k < K; k++) {
        V x[A];
        for (int a = 0; a < A; a++) x[a] = load<V>(in + k * plane + a * lanes<T, V>()), hold(x[a]);
        for (int b = 0; b < B; b++)
            for (int a = 0; a < A; a++) sum[b][a] += weight[k * of_source + b * of_result] * x[a];
    }
}

// out[c] = sum over taps and sources of weight * in, for B channels c of the result and A vectors of images.
template <class T, int B, int A, class In>
APART void vectors(const Line& rows, const Line& columns, const In& in, int64_t first, const T* weight, const T* bias,
                   const T* added, T* out, int64_t out_plane, int64_t count) {
    typedef typename Vector<T>::type V;
    constexpr int L = lanes<T, V>();
    V sum[B][A];
    for (int b = 0; b < B; b++)
        for (int a = 0; a < A; a++) sum[b][a] = V{} + (bias ? bias[b] : T(0));
    int64_t plane = in.plane();
    for (int i = 0; i < rows.count; i++)
        for (int j = 0; j < columns.count; j++) {
            const T* p = in.kept.data() + rows.from[i] + columns.from[j] + first;
            const T* w = weight + (rows.tap[i] * in.slots + columns.tap[j]) * in.channels * B;
            int64_t k = 0;
            for (; k + 4 <= in.channels; k += 4, p += 4 * plane, w += 4 * B)
                accumulate<T, V, B, 4>(p, plane, w, B, 1, sum);
            for (; k < in.channels; k++, p += plane, w += B) accumulate<T, V, B, 1>(p, plane, w, B, 1, sum);
        }
    for (int b = 0; b < B; b++)
        for (int a = 0; a < A; a++) {
            int64_t at = b * out_plane + a * L;
            if (count >= (a + 1) * L)
                store(out + at, added ? sum[b][a] + load<V>(added + at) : sum[b][a]);
            else
                for (int l = 0; l < count - a * L; l++)
                    out[at + l] = added ? sum[b][a][l] + added[at + l] : sum[b][a][l];
        }
}

template <class T, int B, class In>
void pixel(const Line& rows, const Line& columns, const In& in, const T* weight, const T* bias, const T* added, T* out,
           int64_t out_plane, int64_t count) {
    const auto plus = [&](int64_t n) { return added ? added + n : nullptr; };
    constexpr int64_t step = A * lanes<T, typename Vector<T>::type>();
    int64_t n = 0;
    if constexpr (sizeof(typename Vector<T>::type) == 64)  // of which there are twice as many registers
        for (; n + 2 * step <= count; n += 2 * step)
            vectors<T, B, 2 * A>(rows, columns, in, n, weight, bias, plus(n), out + n, out_plane, 2 * step);
    for (; n < count; n += step)
        vectors<T, B, A>(rows, columns, in, n, weight, bias, plus(n), out + n, out_plane,
                         count - n < step ? count - n : step);
}

// The weights of each four results, packed as [tap][source][four]; results and sources change places on the way back.
template <class T>
std::vector<T> packed(const Sizes& s, const T* weight, bool back) {
    int64_t area = s.kernel * s.kernel, sources = back ? s.outputs : s.inputs, results = back ? s.inputs : s.outputs;
    std::vector<T> found(area * sources * results);
    T* into = found.data();
    for (int64_t first = 0; first < results; first += 4)
        for (int64_t t = 0; t < area; t++)
            for (int64_t k = 0; k < sources; k++)
                for (int64_t c = first; c < results && c < first + 4; c++)
                    *into++ = weight[((back ? k : c) * s.inputs + (back ? c : k)) * area + t];
    return found;
}

// A convolution, or its way back to the source, row by row.
template <class T>
struct Gather {
    static constexpr int64_t LEAST = A * lanes<T, typename Vector<T>::type>();  // images that are computed together

    Sizes s;
    bool back;
    const T *bias, *added;  // a number of every result; numbers as many as there are results
    T* out;
    int64_t in_height, in_width, height, width, sources, results, out_plane;
    std::vector<T> weights;
    std::vector<Line> across;

    Gather(const Sizes& s, const T* weight, const T* bias, const T* added, T* out, bool back)
        : s(s), back(back), bias(bias), added(added), out(out) {
        int64_t rows = s.rows(), columns = s.columns();
        in_height = back ? rows : s.height, in_width = back ? columns : s.width;
        height = back ? s.height : rows, width = back ? s.width : columns;
        sources = back ? s.outputs : s.inputs, results = back ? s.inputs : s.outputs;
        out_plane = height * width * s.images;
        weights = packed(s, weight, back);
    }

    // Row y of the result, of the images [n, n + count).
    template <class In>
    void row(In& in, int64_t y, int64_t n, int64_t count) {
        if (across.empty())
            for (int64_t x = 0; x < width; x++) {
                across.push_back(line(s, x, in_width, back));
                for (int64_t& column : across.back().from) column *= in.together;
            }
        Line down = line(s, y, in_height, back);
        for (int i = 0; i < down.count; i++) down.from[i] = in.take(down.from[i], n, count);
        for (int64_t first = 0; first < results; first += 4) {
            const T* own = weights.data() + first * s.kernel * s.kernel * sources;
            const T* b = bias ? bias + first : nullptr;
            for (int64_t x = 0; x < width; x++) {
                int64_t at = first * out_plane + (y * width + x) * s.images + n;
                const T* plus = added ? added + at : nullptr;
                up_to_four(results - first,
                           [&](auto B) { pixel<T, B>(down, across[x], in, own, b, plus, out + at, out_plane, count); });
            }
        }
    }
};

// All rows; done(y, n, count) hears of each, of the images [n, n + count).
template <class T, class Source, class Done>
void gather(Gather<T>& all, const Source& source, Done done) {
    const Sizes& s = all.s;
    Rows<T, Source> kept(source, all.sources, all.in_width, s.images, s.kernel, Gather<T>::LEAST);
    for (int64_t n = 0; n < s.images; n += kept.together) {
        int64_t count = std::min(s.images - n, kept.together);
        kept.forget();
        for (int64_t y = 0; y < all.height; y++) {
            all.row(kept, y, n, count);
            done(y, n, count);
        }
    }
}

// sum[b][j] += dy[b] * x[j] over neighbouring pixels of the result and some images, for B results and the taps [J0,
// J1).
template <int J0, int J1, class T, class V, int B, int K>
inline void taps(const T* dy, int64_t dy_plane, int64_t dy_step, const T* x, int64_t tap, int64_t x_step,
                 int64_t pixels, int64_t images, V (&sum)[B][K]) {
    constexpr int L = lanes<T, V>();
    if (dy_step == images && x_step == images) images *= pixels, pixels = 1;  // they lie one after the other
    int64_t p = 0;
    do {  // once at least, as compilers should know
        int64_t n = 0;
        do {
            V v[K];
            for (int j = J0; j < J1; j++) v[j] = load<V>(x + p * x_step + j * tap + n), hold(v[j]);
            for (int b = 0; b < B; b++) {
                V d = load<V>(dy + b * dy_plane + p * dy_step + n);
                hold(d);
                for (int j = J0; j < J1; j++) sum[b][j] += d * v[j];
            }
            n += L;
        } while (n + L <= images);
    } while (++p < pixels);
}

// Where one row of a kernel is applied: B results d and a source, from their first columns on.
template <class T>
struct Pass {
    const T *d, *from;
    int64_t plane, step, tap, jump, count;  // of the results' planes and columns, the source's; images
};

// Add up one row of a kernel, K taps wide, over `columns` of which all taps are there. Before them there may be one
// that lacks the first tap, behind them one that lacks the last.
template <class T, class V, int B, int K>
APART void kernel_row(const Pass<T>& p, bool before, int64_t columns, bool behind, T* sums) {
    constexpr int L = lanes<T, V>();
    V sum[B][K];
    for (int b = 0; b < B; b++)
        for (int j = 0; j < K; j++) sum[b][j] = load<V>(sums + (b * 3 + j) * L), hold(sum[b][j]);
    if constexpr (K == 3)
        if (before) taps<1, 3>(p.d - p.step, p.plane, p.step, p.from - p.jump, p.tap, p.jump, 1, p.count, sum);
    if (columns) taps<0, K>(p.d, p.plane, p.step, p.from, p.tap, p.jump, columns, p.count, sum);
    if constexpr (K == 3)
        if (behind)
            taps<0, 2>(p.d + columns * p.step, p.plane, p.step, p.from + columns * p.jump, p.tap, p.jump, 1, p.count,
                       sum);
    for (int b = 0; b < B; b++)
        for (int j = 0; j < K; j++) store(sums + (b * 3 + j) * L, sum[b][j]);
}

// The gradient of a kernel, a vector of sums for each number of it: four results at a time, whatever is left of four.
template <class T, class V>
struct Kernel {
    static constexpr int L = lanes<T, V>();

    const Sizes& s;
    int64_t each;
    Room<T> sums;

    Kernel(const Sizes& s) : s(s), each(s.inputs * s.kernel * 12) { sums.assign((s.outputs + 3) / 4 * each * L, T(0)); }

    // Over row y of the result and `count` images: as many columns at a time as the nearest cache holds of four
    // results.
    void add(const Places<T>& dy, const Places<T>& x, int64_t y, int64_t count) {
        if (!count) return;
        if (sums.empty()) sums.assign((s.outputs + 3) / 4 * each * L, T(0));
        const int64_t together = std::max<int64_t>(1, NEAR / (4 * count * sizeof(T))), columns = s.columns();
        for (int64_t o = 0; o < s.outputs; o += 4)
            for (int64_t c = 0, end = 0; c < columns; c = end) {
                end = c + 3 * together / 2 < columns ? c + together : columns;
                for (int64_t k = 0; k < s.inputs; k++)
                    for (int64_t i = 0; i < s.kernel; i++) {
                        const int64_t r = y * s.stride + i - s.padding;
                        if (r < 0 || r >= s.height) continue;
                        const Pass<T> all{
                            dy.at(o, y), x.at(k, r) - s.padding * x.step, dy.plane, dy.step, x.step, s.stride * x.step,
                            count};
                        T* own = sums.data() + o / 4 * each * L + (k * s.kernel + i) * 12 * L;
                        up_to_four(s.outputs - o, [&](auto B) { columns_of<B>(all, c, end, own); });
                    }
            }
    }

    // Columns [c, end) of such a row.
    template <int B>
    void columns_of(Pass<T> p, int64_t c, int64_t end, T* own) const {
        const auto at = [&](int64_t column) {
            Pass<T> found = p;
            found.d += column * p.step, found.from += column * p.jump;
            return found;
        };
        if (s.kernel == 1) return kernel_row<T, V, B, 1>(at(c), false, end - c, false, own);
        const auto first = [&](int64_t column) { return std::max<int64_t>(0, s.padding - column * s.stride); };
        const auto last = [&](int64_t column) { return std::min<int64_t>(3, s.width + s.padding - column * s.stride); };
        const auto odd = [&](int64_t column) {  // with taps missing at both sides, or two of three
            for (int64_t j = first(column); j < last(column); j++) {
                Pass<T> one = at(column);
                one.from += j * p.tap;
                kernel_row<T, V, B, 1>(one, false, 1, false, own + j * L);
            }
        };
        const auto whole = [&](int64_t column) { return first(column) == 0 && last(column) == 3; };
        while (c < end && !whole(c) && !(first(c) == 1 && last(c) == 3)) odd(c++);
        const bool before = c < end && first(c) == 1;
        int64_t from = c + before, to = from;
        while (to < end && whole(to)) to++;
        const bool behind = to < end && first(to) == 0 && last(to) == 2;
        if (before || from < to || behind) kernel_row<T, V, B, 3>(at(from), before, to - from, behind, own);
        for (c = to + behind; c < end; c++) odd(c);
    }

    void put(T* out) const {
        if (sums.empty()) return;
        for (int64_t o = 0; o < s.outputs; o++)
            for (int64_t k = 0; k < s.inputs; k++)
                for (int64_t i = 0; i < s.kernel; i++)
                    for (int64_t j = 0; j < s.kernel; j++) {
                        const T* from = sums.data() + ((o / 4) * each + (k * s.kernel + i) * 12 + (o % 4) * 3 + j) * L;
                        T total = 0;
                        for (int l = 0; l < L; l++) total += from[l];
                        out[((o * s.inputs + k) * s.kernel + i) * s.kernel + j] += total;
                    }
    }
};

// Both kinds of sums: of whole vectors of images, and of those that fill none.
template <class T>
struct Kernels {
    typedef typename Vector<T>::type V;

    Kernel<T, V> whole;
    Kernel<T, typename One<T>::type> rest;

    Kernels(const Sizes& s) : whole(s), rest(s) {}

    void add(const Places<T>& dy, const Places<T>& x, int64_t y, int64_t count) {
        int64_t most = count / lanes<T, V>() * lanes<T, V>();
        whole.add(dy, x, y, most);
        Places<T> dy_left = dy, x_left = x;
        dy_left.numbers += most, x_left.numbers += most;
        rest.add(dy_left, x_left, y, count - most);
    }

    void put(T* out) const {
        std::memset(out, 0, whole.s.outputs * whole.s.inputs * whole.s.kernel * whole.s.kernel * sizeof(T));
        whole.put(out);
        rest.put(out);
    }
};

// Planes of rows side by side, as tensors have them.
template <class T>
Places<T> planes(const T* numbers, int64_t rows, int64_t columns, int64_t images) {
    return {numbers, rows * columns * images, columns * images, images, 0};
}

template <class V>
inline auto across(const V& v) {
    auto total = v[0];
    for (int l = 1; l < int(sizeof(V) / sizeof(v[0])); l++) total += v[l];
    return total;
}

// Add the sums of f(i) over count numbers, of each of N terms: f gives vectors, or one number where those do not fill.
// Every few thousand numbers are one sum, and the sums of them are added in double precision.
template <class T, int N, class F>
inline void sums(int64_t count, double (&total)[N], F f) {
    typedef typename Vector<T>::type V;
    typedef typename One<T>::type S;
    constexpr int L = lanes<T, V>();
    int64_t i = 0;
    while (i + L <= count) {
        int64_t end = i + 256 * L < count ? i + 256 * L : count;
        V even[N] = {}, odd[N] = {};
        for (; i + 2 * L <= end; i += 2 * L) {
            f(i, even);
            f(i + L, odd);
        }
        for (; i + L <= end; i += L) f(i, even);
        for (int k = 0; k < N; k++) total[k] += across(even[k] + odd[k]);
    }
    S rest[N] = {};
    for (; i < count; i++) f(i, rest);
    for (int k = 0; k < N; k++) total[k] += rest[k][0];
}

// The mean and the variance of count numbers, of the sums of how far they lie from a level and of its squares; and
// those that move by the momentum.
template <class T>
void settle(T level, double away, double squares, double count, T& mean, T& var) {
    double off = away / count, spread = squares / count - off * off;
    mean = T(level + off);
    var = T(spread < 0 ? 0 : spread);
}

template <class T>
void follow(T mean, T var, double count, double momentum, T& running_mean, T& running_var) {
    running_mean += T(momentum) * (mean - running_mean);
    running_var += T(momentum) * (var * T(count / (count - 1)) - running_var);
}

// y = x * scale + shift of a channel, before what is added and the ReLU.
template <class T>
struct Affine {
    T deviation, scale, shift;  // deviation: 1 / sqrt(var + eps)

    Affine(T weight, T bias, T mean, T var, double eps)
        : deviation(T(1 / std::sqrt(double(var) + eps))), scale(weight * deviation), shift(bias - mean * scale) {}
};

}  // namespace
