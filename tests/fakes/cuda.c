/* A pretend libcuda.so.1: a driver that finds no card, and says which of its functions were called.

   What is linked against the driver loads; cuInit and everything after it answers CUDA_ERROR_NO_DEVICE. Where
   FAKE_CUDA_LOG names a file, each call adds a line "PID NAME" to it: so a test can show that a process asked the
   driver for nothing, or what it asked first. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define NO_DEVICE 100 /* CUDA_ERROR_NO_DEVICE */
#define DRIVER 13000  /* CUDA 13.0: the release that the pinned torch is built for */

static int note(const char *name, int answer) {
    const char *path = getenv("FAKE_CUDA_LOG");
    if (path) {
        char line[200];
        int length = snprintf(line, sizeof line, "%d %s\n", getpid(), name);
        int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
        if (file >= 0) {
            if (write(file, line, length) < 0) abort();
            close(file);
        }
    }
    return answer;
}

int cuInit(unsigned flags) { return note("cuInit", NO_DEVICE); }
int cuDriverGetVersion(int *version) { *version = DRIVER; return note("cuDriverGetVersion", SUCCESS); }
int cuGetErrorString(int error, const char **text) { *text = "no CUDA-capable device is detected"; return SUCCESS; }
int cuGetErrorName(int error, const char **text) { *text = "CUDA_ERROR_NO_DEVICE"; return SUCCESS; }
int cuGetExportTable(const void **table, const void *id) { *table = 0; return NO_DEVICE; }
static int by_address(void) { return note("a function had by its address", NO_DEVICE); }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, void *status) {
    static const struct { const char *name; void *function; } ours[] = {
        {"cuInit", cuInit},
        {"cuDriverGetVersion", cuDriverGetVersion},
        {"cuGetErrorString", cuGetErrorString},
        {"cuGetErrorName", cuGetErrorName},
        {"cuGetExportTable", cuGetExportTable},
        {"cuGetProcAddress", cuGetProcAddress_v2},
        {"cuGetProcAddress_v2", cuGetProcAddress_v2},
    };
    *function = by_address;
    for (unsigned i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!strcmp(name, ours[i].name)) *function = ours[i].function;
    return SUCCESS;
}

int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}

/* What the extensions of torch and vLLM name in their symbol tables (nm -D --undefined-only), and Triton's own. */
#define NONE(name) int name(void) { return note(#name, NO_DEVICE); }
NONE(cuCtxGetCurrent) NONE(cuCtxGetLimit) NONE(cuCtxSetCurrent) NONE(cuCtxSetLimit) NONE(cuDeviceGet) NONE(cuDeviceGetAttribute) NONE(cuDeviceGetCount)
NONE(cuDevicePrimaryCtxGetState) NONE(cuDevicePrimaryCtxRetain) NONE(cuFuncGetAttribute) NONE(cuFuncSetAttribute)
NONE(cuFuncSetCacheConfig) NONE(cuLaunchCooperativeKernel) NONE(cuLaunchKernel) NONE(cuLaunchKernelEx)
NONE(cuLinkAddData_v2) NONE(cuLinkComplete) NONE(cuLinkCreate_v2) NONE(cuMemAddressFree) NONE(cuMemAddressReserve)
NONE(cuMemCreate) NONE(cuMemGetAllocationGranularity) NONE(cuMemMap) NONE(cuMemRelease) NONE(cuMemSetAccess)
NONE(cuMemUnmap) NONE(cuModuleGetFunction) NONE(cuModuleLoad) NONE(cuModuleLoadData) NONE(cuModuleLoadDataEx)
NONE(cuModuleUnload) NONE(cuOccupancyMaxActiveBlocksPerMultiprocessor) NONE(cuPointerGetAttribute) NONE(cuPointerGetAttributes)
NONE(cuTensorMapEncodeTiled)
