/* A pretend NVIDIA driver library: libnvidia-ml.so.1 of a machine that need not have a card.
 *
 * Built by tests/support/nvml.py and put on LD_LIBRARY_PATH, it answers whoever asks the driver: ctypes, pynvml, vLLM,
 * torch. Every card is the same. What it answers is set by environment variables; a file named by FAKE_NVML_FILE, with
 * a NAME=VALUE a line, wins over them and is read at each call, so that a test can change a driver that is in use.
 *
 *   variable                default                   meaning
 *   FAKE_NVML_INIT          0                         what nvmlInit answers: 4 no permission, 9 module not loaded,
 *                                                     15 card lost, 17 blocked by the system, 18 library and module differ
 *   FAKE_NVML_DEVICE        0                         what every call about a card answers, such as 15
 *   FAKE_NVML_CARDS         1                         how many cards there are
 *   FAKE_NVML_NAME          NVIDIA GeForce RTX 5080   their name
 *   FAKE_NVML_CAPABILITY    12.0                      their compute capability
 *   FAKE_NVML_DRIVER        580.95.05                 the driver's version
 *   FAKE_NVML_CUDA          13000                     the CUDA version of the driver, 1000 * major + 10 * minor
 *   FAKE_NVML_TOTAL         17094934528               bytes of a card
 *   FAKE_NVML_RESERVED      400000000                 bytes that the driver keeps for itself
 *   FAKE_NVML_USED          0                         bytes that programs use; the sum of the processes' by default
 *   FAKE_NVML_MEMORY        v2                        v1: a driver that does not know what is reserved (as MIG)
 *   FAKE_NVML_PROCESSES     (nobody)                  who computes: PID:BYTES,PID:BYTES or PID:N/A (as on WSL2);
 *                                                     unsupported: the card has no such list
 *   FAKE_NVML_GRAPHICS      (nobody)                  who draws, in the same form
 *
 * No header is included, so that a compiler is all it needs.
 */

typedef int result;
typedef unsigned long long bytes;
typedef struct card *device;

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, FUNCTION_NOT_FOUND = 13 };
enum { TEXT = 4096, KEYS = 8 };

extern char *getenv(const char *);
extern int open(const char *, int, ...);
extern long read(int, void *, unsigned long);
extern int close(int);

static int initialized;

static unsigned long length(const char *text) {
    unsigned long n = 0;
    while (text[n]) n++;
    return n;
}

static int begins(const char *text, const char *with) {
    while (*with)
        if (*text++ != *with++) return 0;
    return 1;
}

static void copy(char *to, unsigned long size, const char *from, unsigned long n) {
    unsigned long i = 0;
    for (; i + 1 < size && i < n && from[i]; i++) to[i] = from[i];
    if (size) to[i] = 0;
}

/* The value of a variable: from the file, else from the environment, else the default. */
static void setting(const char *name, const char *otherwise, char *value) {
    const char *path = getenv("FAKE_NVML_FILE"), *found = getenv(name);
    copy(value, TEXT, found && *found ? found : otherwise, TEXT);
    if (!path || !*path) return;
    int file = open(path, 0);
    if (file < 0) return;
    char text[TEXT + 1];
    long n = read(file, text, TEXT);
    close(file);
    text[n > 0 ? n : 0] = 0;
    for (char *line = text; *line;) {
        char *end = line;
        while (*end && *end != '\n') end++;
        if (begins(line, name) && line[length(name)] == '=') {
            char *from = line + length(name) + 1;
            copy(value, TEXT, from, (unsigned long)(end - from));
        }
        line = *end ? end + 1 : end;
    }
}

static bytes digits(const char **text) {
    bytes n = 0;
    while (**text >= '0' && **text <= '9') n = n * 10 + (bytes)(*(*text)++ - '0');
    return n;
}

static bytes number(const char *name, const char *otherwise) {
    char value[TEXT];
    setting(name, otherwise, value);
    const char *at = value;
    return digits(&at);
}

static result text_of(const char *name, const char *otherwise, char *out, unsigned size) {
    char value[TEXT];
    setting(name, otherwise, value);
    if (size <= length(value)) return INSUFFICIENT_SIZE;
    copy(out, size, value, TEXT);
    return SUCCESS;
}

/* What every call about a card answers before anything else. */
static result asked(void) {
    return initialized ? (result)number("FAKE_NVML_DEVICE", "0") : UNINITIALIZED;
}

#define ASKED() do { result code = asked(); if (code) return code; } while (0)

result nvmlInit_v2(void) {
    result code = (result)number("FAKE_NVML_INIT", "0");
    if (code == SUCCESS) initialized++;
    return code;
}
result nvmlInit(void) { return nvmlInit_v2(); }
result nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }

result nvmlShutdown(void) {
    if (!initialized) return UNINITIALIZED;
    initialized--;
    return SUCCESS;
}

const char *nvmlErrorString(result code) {
    switch (code) {
    case 0: return "Success";
    case 1: return "Uninitialized";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 17: return "GPU access blocked by the operating system";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

/* The driver */

result nvmlSystemGetDriverVersion(char *out, unsigned size) {
    if (!initialized) return UNINITIALIZED;
    return text_of("FAKE_NVML_DRIVER", "580.95.05", out, size);
}
result nvmlSystemGetNVMLVersion(char *out, unsigned size) { return nvmlSystemGetDriverVersion(out, size); }
result nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = (int)number("FAKE_NVML_CUDA", "13000"); return SUCCESS; }
result nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

/* Cards: a handle is the card's number, counted from 1 */

result nvmlDeviceGetCount_v2(unsigned *count) {
    if (!initialized) return UNINITIALIZED;
    *count = (unsigned)number("FAKE_NVML_CARDS", "1");
    return SUCCESS;
}
result nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

result nvmlDeviceGetHandleByIndex_v2(unsigned index, device *card) {
    ASKED();
    if (index >= number("FAKE_NVML_CARDS", "1")) return INVALID_ARGUMENT;
    *card = (device)(unsigned long)(index + 1);
    return SUCCESS;
}
result nvmlDeviceGetHandleByIndex(unsigned index, device *card) { return nvmlDeviceGetHandleByIndex_v2(index, card); }

result nvmlDeviceGetIndex(device card, unsigned *index) {
    ASKED();
    *index = (unsigned)(unsigned long)card - 1;
    return SUCCESS;
}

/* GPU-00000000-0000-0000-0000-00000000000N, where N is the index; of KEYS cards at most. */
static const char UUID[] = "GPU-00000000-0000-0000-0000-000000000000";

result nvmlDeviceGetUUID(device card, char *out, unsigned size) {
    ASKED();
    if (size < sizeof UUID) return INSUFFICIENT_SIZE;
    copy(out, size, UUID, sizeof UUID);
    out[sizeof UUID - 2] = (char)('0' + ((unsigned long)card - 1) % KEYS);
    return SUCCESS;
}

result nvmlDeviceGetHandleByUUID(const char *uuid, device *card) {
    ASKED();
    char own[sizeof UUID];
    for (unsigned long index = 0; index < number("FAKE_NVML_CARDS", "1") && index < KEYS; index++) {
        nvmlDeviceGetUUID((device)(index + 1), own, sizeof own);
        if (begins(uuid, own)) return nvmlDeviceGetHandleByIndex_v2((unsigned)index, card);
    }
    return NOT_FOUND;
}

result nvmlDeviceGetName(device card, char *out, unsigned size) {
    (void)card;
    ASKED();
    return text_of("FAKE_NVML_NAME", "NVIDIA GeForce RTX 5080", out, size);
}

result nvmlDeviceGetCudaComputeCapability(device card, int *major, int *minor) {
    (void)card;
    ASKED();
    char value[TEXT];
    setting("FAKE_NVML_CAPABILITY", "12.0", value);
    const char *at = value;
    *major = (int)digits(&at);
    if (*at == '.') at++;
    *minor = (int)digits(&at);
    return SUCCESS;
}

/* Processes */

typedef struct { unsigned pid; bytes used; unsigned gpu_instance, compute_instance; } process;
static const bytes NOT_AVAILABLE = ~(bytes)0;

static result processes(const char *name, unsigned *count, process *list) {
    ASKED();
    char value[TEXT];
    setting(name, "", value);
    if (begins(value, "unsupported")) return NOT_SUPPORTED;
    unsigned room = *count, n = 0;
    for (const char *at = value; *at;) {
        process one = { (unsigned)digits(&at), NOT_AVAILABLE, ~0U, ~0U };
        if (*at == ':') at++;
        if (*at >= '0' && *at <= '9') one.used = digits(&at);
        while (*at && *at != ',') at++;
        if (*at == ',') at++;
        if (n < room && list) list[n] = one;
        n++;
    }
    *count = n;
    return n > room ? INSUFFICIENT_SIZE : SUCCESS;
}

result nvmlDeviceGetComputeRunningProcesses_v3(device card, unsigned *count, process *list) {
    (void)card;
    return processes("FAKE_NVML_PROCESSES", count, list);
}
result nvmlDeviceGetGraphicsRunningProcesses_v3(device card, unsigned *count, process *list) {
    (void)card;
    return processes("FAKE_NVML_GRAPHICS", count, list);
}

/* Memory */

typedef struct { bytes total, free, used; } memory;
typedef struct { unsigned version; bytes total, reserved, free, used; } memory_v2;

static bytes in_use(void) {
    char value[TEXT];
    setting("FAKE_NVML_USED", "", value);
    const char *at = value;
    if (*at) return digits(&at);
    process list[64];
    unsigned count = 64;
    bytes sum = 0;
    if (processes("FAKE_NVML_PROCESSES", &count, list) == SUCCESS)
        for (unsigned i = 0; i < count; i++)
            if (list[i].used != NOT_AVAILABLE) sum += list[i].used;
    return sum;
}

/* In the first version what is reserved is used, in the second it is apart: as the driver has it. */
result nvmlDeviceGetMemoryInfo(device card, memory *out) {
    (void)card;
    ASKED();
    out->total = number("FAKE_NVML_TOTAL", "17094934528");
    out->used = in_use() + number("FAKE_NVML_RESERVED", "400000000");
    out->free = out->total - out->used;
    return SUCCESS;
}

result nvmlDeviceGetMemoryInfo_v2(device card, memory_v2 *out) {
    (void)card;
    ASKED();
    char value[TEXT];
    setting("FAKE_NVML_MEMORY", "v2", value);
    if (begins(value, "v1")) return FUNCTION_NOT_FOUND;
    out->total = number("FAKE_NVML_TOTAL", "17094934528");
    out->reserved = number("FAKE_NVML_RESERVED", "400000000");
    out->used = in_use();
    out->free = out->total - out->reserved - out->used;
    return SUCCESS;
}
