/* Mamba's selective scan as a plain scalar loop: one token, one channel, one state at a time, expf for every one.
 *
 * This is the shape of the loop in ggml's ggml_ssm_scan for Mamba-1, written from the recurrence, without SIMD pragmas:
 * the sum over states is a serial reduction, so that a compiler that keeps IEEE order does not vectorise it.
 *
 *   h = exp(delta A) h + delta x B,   y = C h + D x
 *
 * x, delta, y: (length, channels); A: (channels, states); B, C: (length, states); D: (channels); h: (channels, states),
 * zeros at the start.
 */
#include <math.h>
#include <stdint.h>

void selective_scan_loop(int64_t length, int64_t channels, int64_t states, const float *x, const float *delta,
                         const float *A, const float *B, const float *C, const float *D, float *h, float *y) {
    for (int64_t t = 0; t < length; ++t) {
        for (int64_t d = 0; d < channels; ++d) {
            const float step = delta[t * channels + d];
            const float input = x[t * channels + d];
            const float x_dt = input * step;
            float sum = 0.0f;
            for (int64_t i = 0; i < states; ++i) {
                const float state = h[d * states + i] * expf(step * A[d * states + i]) + B[t * states + i] * x_dt;
                sum += state * C[t * states + i];
                h[d * states + i] = state;
            }
            y[t * channels + d] = sum + D[d] * input;
        }
    }
}
