// Layers of one thin network, each by itself: convolutions and batch norms whose vectors hold images, attention whose
// vectors hold tokens that ask.

#include "lanes.hpp"

namespace {

// Convolutions -----------------------------------------------------------------------------------------------

template <class T>
void gather(const Sizes& s, const T* in, const T* weight, const T* bias, T* out, bool back) {
    Gather<T> all(s, weight, bias, nullptr, out, back);
    gather(all, Plain<T>{in, all.in_height * all.in_width * s.images}, [](int64_t, int64_t, int64_t) {});
}

template <class T>
void weights(const Sizes& s, const T* dy, const T* x, T* out) {
    Kernels<T> kernels(s);
    int64_t rows = s.rows(), columns = s.columns();
    for (int64_t y = 0; y < rows; y++)
        kernels.add(planes(dy, rows, columns, s.images), planes(x, s.height, s.width, s.images), y, s.images);
    kernels.put(out);
}

// Batch norm, of one channel at a time: what is added and the ReLU behind are of the same pass ------------------

struct Norm {
    int64_t channels, count, relu, given;
};

// The mean and the variance of count numbers, in one pass about the mean of every 16th vector of them. That lies within
// four deviations of the mean of all, whatever the numbers are, so next to no digits cancel.
template <class T>
void moments(const T* x, int64_t count, T& mean, T& var) {
    typedef typename Vector<T>::type V;
    constexpr int L = lanes<T, V>();
    double total[2] = {}, about = 0;
    int64_t taken = 0;
    for (int64_t i = 0; i + L <= count; i += 16 * L, taken += L) about += across(load<V>(x + i));
    T level = taken ? T(about / taken) : x[0];
    sums<T>(count, total, [&](int64_t i, auto& sum) {
        auto d = load<std::decay_t<decltype(sum[0])>>(x + i) - level;
        sum[0] += d;
        sum[1] += d * d;
    });
    settle(level, total[0], total[1], count, mean, var);
}

// The mean and the variance of channel c, and those that move by the momentum.
template <class T>
void statistics(const Norm& s, int64_t c, const T* x, T* mean, T* var, double momentum, T* running_mean,
                T* running_var) {
    moments(x + c * s.count, s.count, mean[c], var[c]);
    follow(mean[c], var[c], s.count, momentum, running_mean[c], running_var[c]);
}

template <class T>
void normalise(const Norm& s, const T* x, const T* weight, const T* bias, const T* added, double eps, T* mean, T* var,
               T* out, double momentum, T* running_mean, T* running_var) {
    for (int64_t c = 0; c < s.channels; c++) {
        const T *from = x + c * s.count, *plus = added ? added + c * s.count : nullptr;
        T* to = out + c * s.count;
        if (!s.given) statistics(s, c, x, mean, var, momentum, running_mean, running_var);
        Affine<T> a(weight[c], bias[c], mean[c], var[c], eps);
        T scale = a.scale, shift = a.shift;
        if (plus && s.relu)
            for (int64_t i = 0; i < s.count; i++) {
                T y = from[i] * scale + shift + plus[i];
                to[i] = y < 0 ? T(0) : y;
            }
        else if (plus)
            for (int64_t i = 0; i < s.count; i++) to[i] = from[i] * scale + shift + plus[i];
        else if (s.relu)
            for (int64_t i = 0; i < s.count; i++) {
                T y = from[i] * scale + shift;
                to[i] = y < 0 ? T(0) : y;
            }
        else
            for (int64_t i = 0; i < s.count; i++) to[i] = from[i] * scale + shift;
    }
}

// The gradient of x behind a batch norm: g is what came back, masked where the ReLU or y says so.
template <class T>
struct Slope {
    const T *g, *x, *y;  // y, if there: where it is 0 the ReLU let nothing through
    bool again;          // find what is behind the ReLU again, from x
    T scale, shift, mean, level, slope;

    void put(int64_t at, int64_t count, T* to) const {
        const T *d = g + at, *from = x + at, *over = y ? y + at : nullptr;
        if (again)
            for (int64_t i = 0; i < count; i++) {
                T own = from[i] * scale + shift <= 0 ? T(0) : d[i];
                to[i] = scale * (own - level - slope * (from[i] - mean));
            }
        else if (over)
            for (int64_t i = 0; i < count; i++) {
                T own = over[i] <= 0 ? T(0) : d[i];
                to[i] = scale * (own - level - slope * (from[i] - mean));
            }
        else
            for (int64_t i = 0; i < count; i++) to[i] = scale * (d[i] - level - slope * (from[i] - mean));
    }
};

// A batch norm's way back: dweight and dbias from dy by one pass over every channel, after which dx is `Slope`'s.
// `passed`, if what was added asks for it, gets its gradient, dy behind the ReLU. `y` says where that was 0; without it
// nothing was added, and x says so.
template <class T>
struct NormBack {
    const Norm& s;
    const T *dy, *x, *y, *weight, *bias, *mean, *var;
    double eps;
    T *passed, *dweight, *dbias;

    Slope<T> slope(int64_t c) const {
        const T *g = dy + c * s.count, *from = x + c * s.count, *at = y ? y + c * s.count : nullptr;
        T *kept = passed ? passed + c * s.count : nullptr, m = mean[c];
        Affine<T> a(weight[c], bias[c], m, var[c], eps);
        T scale = a.scale, shift = a.shift;
        bool again = s.relu && !at;
        double total[2] = {};
        sums<T>(s.count, total, [&](int64_t i, auto& sum) {
            typedef std::decay_t<decltype(sum[0])> W;
            W d = load<W>(g + i), v = load<W>(from + i);
            if (again)
                d = v * scale + shift <= T(0) ? W{} : d;
            else if (s.relu)
                d = load<W>(at + i) <= T(0) ? W{} : d;
            if (kept) store(kept + i, d);
            sum[0] += d;
            sum[1] += d * (v - m);
        });
        dbias[c] = T(total[0]);
        dweight[c] = T(total[1] * a.deviation);
        T level = T(total[0] / s.count), slope = T(total[1] * a.deviation * a.deviation / s.count);
        if (kept) return {kept, from, nullptr, false, scale, shift, m, level, slope};
        return {g, from, s.relu ? at : nullptr, again, scale, shift, m, level, slope};
    }
};

template <class T>
void normalise_back(const NormBack<T>& norm, T* dx) {
    for (int64_t c = 0; c < norm.s.channels; c++) norm.slope(c).put(0, norm.s.count, dx + c * norm.s.count);
}

// Attention of texts that lie end to end, a token's queries, keys and values of all heads side by side ----------

struct Texts {
    int64_t texts, heads, size;
};

inline Vector<float>::type exponential(Vector<float>::type x) {  // the coefficients of Cephes' expf
    typedef Vector<float>::type V;
    typedef int32_t I __attribute__((vector_size(BYTES)));
    x = x < -87.0f ? V{} - 87.0f : x;           // so that NaN stays NaN
    V shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the last bits are the rounded whole number
    V whole = shifted - 12582912.0f;
    V r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    V p = V{} + 1.9875691500e-4f;
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = p * r + c;
    I bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000 + 127) << 23;
    V power;
    std::memcpy(&power, &bits, sizeof power);
    return (p * r * r + r + 1.0f) * power;
}

inline Vector<double>::type exponential(Vector<double>::type x) {
    for (int l = 0; l < int(sizeof(x) / sizeof(double)); l++) x[l] = std::exp(x[l]);
    return x;
}

// out[b] = sum over d of rows[b][d] * in[d], for B rows.
template <class T, class V, int B>
inline void rows_times(const T* rows, int64_t step, const T* in, int64_t plane, int64_t size, T* out,
                       int64_t out_plane) {
    V sum[B][A] = {};
    for (int64_t d = 0; d < size; d++) accumulate<T, V, B, 1>(in + d * plane, plane, rows + d, 0, step, sum);
    for (int b = 0; b < B; b++)
        for (int a = 0; a < A; a++) store(out + b * out_plane + a * lanes<T, V>(), sum[b][a]);
}

// out[d] = sum over j of rows[j][d] * in[j], for the `size` numbers of each of `count` rows.
template <class T, class V>
inline void sum_of_rows(const T* rows, int64_t step, const T* in, int64_t plane, int64_t count, int64_t size, T* out) {
    for (int64_t d = 0; d < size; d += 4)
        up_to_four(size - d, [&](auto B) {
            V sum[B][A] = {};
            for (int64_t j = 0; j < count; j++)
                accumulate<T, V, B, 1>(in + j * plane, plane, rows + j * step + d, 0, 1, sum);
            for (int b = 0; b < B; b++)
                for (int a = 0; a < A; a++) store(out + (d + b) * plane + a * lanes<T, V>(), sum[b][a]);
        });
}

// out[j][d] = sum over i of left[j][i] * right[d][i], for i in whole vectors, J rows on the left and B on the right.
template <class T, class V, int J, int B>
inline void products(const T* left, const T* right, int64_t plane, T* out, int64_t step) {
    V sum[J][B];
    for (int j = 0; j < J; j++)
        for (int b = 0; b < B; b++) sum[j][b] = V{};
    for (int64_t i = 0; i < plane; i += lanes<T, V>()) {
        V x[J];
        for (int j = 0; j < J; j++) x[j] = load<V>(left + j * plane + i), hold(x[j]);
        for (int b = 0; b < B; b++) {
            V y = load<V>(right + b * plane + i);
            hold(y);
            for (int j = 0; j < J; j++) sum[j][b] += x[j] * y;
        }
    }
    for (int j = 0; j < J; j++)
        for (int b = 0; b < B; b++) out[j * step + b] = across(sum[j][b]);
}

template <class T, class V, int J>
inline void products(const T* left, const T* right, int64_t plane, int64_t size, T* out, int64_t step) {
    int64_t d = 0;
    for (; d + 4 <= size; d += 4) products<T, V, J, 4>(left, right + d * plane, plane, out + d, step);
    for (; d < size; d++) products<T, V, J, 1>(left, right + d * plane, plane, out + d, step);
}

// One head of one text: what is kept of it while it is computed, tokens that ask in the lanes.
template <class T>
struct Head {
    typedef typename Vector<T>::type V;
    static constexpr int L = lanes<T, V>(), together = A * L;
    int64_t tokens, plane, size, step;
    Room<T> asked, scores, slopes, given, found;

    void begin(int64_t count, int64_t numbers, int64_t row) {
        tokens = count, size = numbers, step = row;
        plane = (count + together - 1) / together * together;
        for (auto* kept : {&asked, &given, &found}) kept->assign(size * plane, T(0));
        scores.resize(tokens * plane), slopes.resize(tokens * plane);
    }

    void turned(const T* rows, int64_t step, T scale, Room<T>& into) const {
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t d = 0; d < size; d++) into[d * plane + i] = rows[i * step + d] * scale;
    }

    // scores[j][i] = sum over d of rows[j][d] * in[d][i], for the tokens i of a group from `first` on.
    void against(const T* rows, const Room<T>& in, int64_t first, Room<T>& into) const {
        int64_t j = 0;
        for (; j + 4 <= tokens; j += 4)
            rows_times<T, V, 4>(rows + j * step, step, in.data() + first, plane, size, into.data() + j * plane + first,
                                plane);
        for (; j < tokens; j++)
            rows_times<T, V, 1>(rows + j * step, step, in.data() + first, plane, size, into.data() + j * plane + first,
                                plane);
    }

    // out[j][d] = sum over tokens i of left[j][i] * right[d][i].
    void along(const Room<T>& left, const Room<T>& right, T* out) const {
        int64_t j = 0;
        for (; j + 3 <= tokens; j += 3)
            products<T, V, 3>(left.data() + j * plane, right.data(), plane, size, out + j * step, step);
        for (; j < tokens; j++)
            products<T, V, 1>(left.data() + j * plane, right.data(), plane, size, out + j * step, step);
    }

    void forward(const T* q, const T* k, const T* v, T* y, int64_t y_step, T* log_sums) {
        turned(q, step, T(1 / std::sqrt(double(size))), asked);
        Room<T> totals(plane);
        for (int64_t first = 0; first < plane; first += together) {
            against(k, asked, first, scores);
            for (int a = 0; a < A; a++) {
                T* own = scores.data() + first + a * L;
                V most = load<V>(own), sum = V{};
                for (int64_t j = 1; j < tokens; j++) {
                    V s = load<V>(own + j * plane);
                    most = s > most ? s : most;
                }
                for (int64_t j = 0; j < tokens; j++) {
                    V p = exponential(load<V>(own + j * plane) - most);
                    sum += p;
                    store(own + j * plane, p);
                }
                store(totals.data() + first + a * L, sum);
                for (int l = 0; l < L && first + a * L + l < tokens; l++)
                    log_sums[first + a * L + l] = most[l] + std::log(sum[l]);
            }
            sum_of_rows<T, V>(v, step, scores.data() + first, plane, tokens, size, found.data() + first);
        }
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t d = 0; d < size; d++) y[i * y_step + d] = found[d * plane + i] / totals[i];
    }

    void backward(const T* q, const T* k, const T* v, const T* y, const T* dy, int64_t y_step, const T* log_sums, T* dq,
                  T* dk, T* dv) {
        T scale = T(1 / std::sqrt(double(size)));
        turned(q, step, scale, asked);
        turned(dy, y_step, T(1), given);
        Room<T> ends(plane, T(0)), levels(plane, T(0));
        for (int64_t i = 0; i < tokens; i++) {
            ends[i] = log_sums[i];
            for (int64_t d = 0; d < size; d++) levels[i] += dy[i * y_step + d] * y[i * y_step + d];
        }
        for (int64_t first = 0; first < plane; first += together) {
            against(k, asked, first, scores);
            against(v, given, first, slopes);
            for (int64_t j = 0; j < tokens; j++)
                for (int a = 0; a < A; a++) {
                    int64_t at = j * plane + first + a * L;
                    V p = exponential(load<V>(scores.data() + at) - load<V>(ends.data() + first + a * L));
                    V slope = p * (load<V>(slopes.data() + at) - load<V>(levels.data() + first + a * L));
                    store(scores.data() + at, p), store(slopes.data() + at, slope);
                }
            sum_of_rows<T, V>(k, step, slopes.data() + first, plane, tokens, size, found.data() + first);
        }
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t d = 0; d < size; d++) dq[i * step + d] = found[d * plane + i] * scale;
        along(slopes, asked, dk);
        along(scores, given, dv);
    }
};

// mixed is [tokens][queries, keys, values][heads][size], y [tokens][heads][size], log_sums [heads][tokens].
template <class T>
void attend(const Texts& s, const int64_t* starts, const T* mixed, T* y, T* log_sums, const T* dy, T* dmixed) {
    Head<T> head;
    int64_t units = s.heads * s.size, step = 3 * units, all = starts[s.texts];
    for (int64_t t = 0; t < s.texts; t++)
        for (int64_t h = 0; h < s.heads && starts[t + 1] > starts[t]; h++) {
            int64_t from = starts[t] * step + h * s.size, to = starts[t] * units + h * s.size;
            const T *q = mixed + from, *k = q + units, *v = k + units;
            T* ends = log_sums + h * all + starts[t];
            head.begin(starts[t + 1] - starts[t], s.size, step);
            if (dmixed) {
                T* dq = dmixed + from;
                head.backward(q, k, v, y + to, dy + to, units, ends, dq, dq + units, dq + 2 * units);
            } else
                head.forward(q, k, v, y + to, units, ends);
        }
}

}  // namespace

#define EXPORT(T, name)                                                                                                \
    extern "C" void lay_##name(const int64_t* sizes, const T* from, T* to) {                                           \
        lay<BYTES / sizeof(T)>(sizes[0], sizes[1], from, sizes[1], to);                                                \
    }                                                                                                                  \
    extern "C" void gather_##name(const int64_t* sizes, const T* in, const T* weight, const T* bias, T* out,           \
                                  int64_t back) {                                                                      \
        gather<T>(*(const Sizes*)sizes, in, weight, bias, out, back);                                                  \
    }                                                                                                                  \
    extern "C" void weights_##name(const int64_t* sizes, const T* dy, const T* x, T* out) {                            \
        weights<T>(*(const Sizes*)sizes, dy, x, out);                                                                  \
    }                                                                                                                  \
    extern "C" void normalise_##name(const int64_t* sizes, const T* x, const T* weight, const T* bias, const T* added, \
                                     double eps, T* mean, T* var, T* out, double momentum, T* running_mean,            \
                                     T* running_var) {                                                                 \
        normalise<T>(*(const Norm*)sizes, x, weight, bias, added, eps, mean, var, out, momentum, running_mean,         \
                     running_var);                                                                                     \
    }                                                                                                                  \
    extern "C" void normalise_back_##name(const int64_t* sizes, const T* dy, const T* x, const T* y, const T* weight,  \
                                          const T* bias, const T* mean, const T* var, double eps, T* passed,           \
                                          T* dweight, T* dbias, T* dx) {                                               \
        normalise_back<T>({*(const Norm*)sizes, dy, x, y, weight, bias, mean, var, eps, passed, dweight, dbias}, dx);  \
    }

#define EXPORT_ATTENTION(T, name)                                                                                 \
    extern "C" void attend_##name(const int64_t* sizes, const int64_t* starts, const T* mixed, T* y, T* log_sums, \
                                  const T* dy, T* dmixed) {                                                       \
        attend<T>(*(const Texts*)sizes, starts, mixed, y, log_sums, dy, dmixed);                                  \
    }

EXPORT_ATTENTION(float, float32)
EXPORT_ATTENTION(double, float64)
EXPORT(float, float32)
EXPORT(double, float64)
