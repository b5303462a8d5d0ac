/* A CUDA driver that computes nothing: it copies memory, keeps time by counting, and writes each call to a log.
 *
 * Signatures are those of NVIDIA's CUDA Driver API reference, so that a caller's argument types meet a real ABI.
 * FAKE_CUDA_LOG names the log; FAKE_CUDA_FAIL a call that answers with an error; FAKE_CUDA_CODE that error's number.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct handle { char kind; int number; float at; int capturing; } *handle;

static int handles = 0, ticks = 0;

static handle make(char kind) {
    handle made = calloc(1, sizeof *made);
    made->kind = kind;
    made->number = ++handles;
    return made;
}

static CUresult note(const char *name, const char *format, ...) {
    FILE *log = fopen(getenv("FAKE_CUDA_LOG"), "a");
    va_list arguments;
    va_start(arguments, format);
    fprintf(log, "%s", name);
    vfprintf(log, format, arguments);
    fprintf(log, "\n");
    fclose(log);
    va_end(arguments);
    const char *failing = getenv("FAKE_CUDA_FAIL");
    return failing && !strcmp(failing, name) ? atoi(getenv("FAKE_CUDA_CODE")) : 0;
}

CUresult cuInit(unsigned flags) { return note("cuInit", " %u", flags); }
CUresult cuGetErrorName(CUresult code, const char **words) {
    if (code != 700 && code != 2) return 1;
    *words = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_ILLEGAL_ADDRESS";
    return 0;
}
CUresult cuDeviceGetCount(int *count) { *count = 1; return note("cuDeviceGetCount", ""); }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    snprintf(name, length, "Fake GPU");
    return note("cuDeviceGetName", " %d %d", length, device);
}
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return note("cuDeviceGetAttribute", " %d %d", attribute, device);
}
CUresult cuDriverGetVersion(int *version) { *version = 12060; return note("cuDriverGetVersion", ""); }
CUresult cuDevicePrimaryCtxRetain(handle *context, CUdevice device) {
    *context = make('c');
    return note("cuDevicePrimaryCtxRetain", " %d", device);
}
CUresult cuCtxSetCurrent(handle context) { return note("cuCtxSetCurrent", " %c%d", context->kind, context->number); }
CUresult cuStreamCreate(handle *stream, unsigned flags) {
    *stream = make('s');
    return note("cuStreamCreate", " %u", flags);
}
CUresult cuStreamSynchronize(handle stream) { return note("cuStreamSynchronize", " %c", stream->kind); }
CUresult cuStreamDestroy_v2(handle stream) { return note("cuStreamDestroy_v2", " %c", stream->kind); }
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    *address = (CUdeviceptr)(uintptr_t)calloc(1, bytes);
    return note("cuMemAlloc_v2", " %zu", bytes);
}
CUresult cuMemFree_v2(CUdeviceptr address) { free((void *)(uintptr_t)address); return note("cuMemFree_v2", ""); }
CUresult cuMemAllocHost_v2(void **address, size_t bytes) {
    *address = calloc(1, bytes);
    return note("cuMemAllocHost_v2", " %zu", bytes);
}
CUresult cuMemFreeHost(void *address) { free(address); return note("cuMemFreeHost", ""); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, handle stream) {
    memcpy((void *)(uintptr_t)to, from, bytes);
    return note("cuMemcpyHtoDAsync_v2", " %zu %c", bytes, stream->kind);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, handle stream) {
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return note("cuMemcpyDtoHAsync_v2", " %zu %c", bytes, stream->kind);
}
CUresult cuEventCreate(handle *event, unsigned flags) { *event = make('e'); return note("cuEventCreate", " %u", flags); }
CUresult cuEventRecord(handle event, handle stream) {
    event->at = ++ticks;
    return note("cuEventRecord", " %c %c", event->kind, stream->kind);
}
CUresult cuEventElapsedTime(float *ms, handle begin, handle end) {
    *ms = (end->at - begin->at) / 4;
    return note("cuEventElapsedTime", " %c %c", begin->kind, end->kind);
}
CUresult cuStreamBeginCapture_v2(handle stream, int mode) {
    stream->capturing = 1;
    return note("cuStreamBeginCapture_v2", " %c %d", stream->kind, mode);
}
CUresult cuStreamEndCapture(handle stream, handle *graph) {
    stream->capturing = 0;
    *graph = make('g');
    return note("cuStreamEndCapture", " %c", stream->kind);
}
CUresult cuGraphInstantiateWithFlags(handle *ready, handle graph, unsigned long long flags) {
    *ready = make('x');
    return note("cuGraphInstantiateWithFlags", " %c %llu", graph->kind, flags);
}
CUresult cuGraphLaunch(handle ready, handle stream) {
    return note("cuGraphLaunch", " %c %c", ready->kind, stream->kind);
}
CUresult cuGraphDestroy(handle graph) { return note("cuGraphDestroy", " %c", graph->kind); }
CUresult cuGraphExecDestroy(handle ready) { return note("cuGraphExecDestroy", " %c", ready->kind); }
