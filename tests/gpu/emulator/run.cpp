// Runs the blocks of a kernel on the processor.
//
// The threads of a block are fibers of one thread of the operating system. A fiber starts thread after thread until one waits
// at a barrier; then the next fiber goes on starting them. So kernels without barriers cost one switch per block. A warp goes on
// until all of its threads wait for the block; a barrier that some will never reach is an error.

#include "shim.h"
#include "table.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

__thread ReidIndex threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr unsigned MOST_THREADS = 256;
constexpr unsigned WARP = 32;
constexpr size_t STACK = 64 * 1024;
constexpr uint64_t CANARY = 0x5ca1ab1e0ddba11u;

// ---- Switching between stacks ----

#if defined(__x86_64__)
struct Context {
    void* stack_pointer;
};

// Saves what a called function must keep, changes stacks, restores.
extern "C" void reid_switch(void** from, void* to);
asm(R"(
.text
.globl reid_switch
.hidden reid_switch
.type reid_switch, @function
reid_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size reid_switch, .-reid_switch
)");

void change(Context& from, Context& to) { reid_switch(&from.stack_pointer, to.stack_pointer); }

void prepare(Context& context, char* stack, void (*entry)()) {
    // As `reid_switch` leaves a stack: six registers, then where to go on. A function is entered 8 off a multiple of 16.
    uint64_t* top = reinterpret_cast<uint64_t*>(stack + STACK);
    *--top = 0;
    *--top = reinterpret_cast<uint64_t>(entry);
    for (int i = 0; i < 6; i++) *--top = 0;
    context.stack_pointer = top;
}
#else
struct Context {
    ucontext_t at;
};

void change(Context& from, Context& to) { swapcontext(&from.at, &to.at); }

void prepare(Context& context, char* stack, void (*entry)()) {
    getcontext(&context.at);
    context.at.uc_stack.ss_sp = stack;
    context.at.uc_stack.ss_size = STACK;
    context.at.uc_link = nullptr;
    makecontext(&context.at, entry, 0);
}
#endif

// ---- A block ----

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, Done };

struct Thread {
    State state;
    int line;
    unsigned fiber;
    // What it hands round; two slots, so that one barrier per shuffle is enough.
    unsigned shuffles;
    unsigned long long handed[2];
};

// What one thread of the operating system needs to run blocks.
struct Runner {
    char* stacks;
    Context scheduler;
    Context fibers[MOST_THREADS];
    unsigned prepared;
    Thread threads[MOST_THREADS];
    unsigned order[MOST_THREADS];
    unsigned count, next, done, used, fiber;
    const ReidKernel* kernel;
    void* const* args;
    bool failed;
    char message[256];

    ~Runner() { munmap(stacks, STACK * MOST_THREADS); }
};

thread_local Runner* runner_of_thread = nullptr;
struct Owner {
    Runner* runner = nullptr;
    ~Owner() { delete runner; }
};
thread_local Owner owner;

Runner* runner() {
    if (!runner_of_thread) {
        void* stacks = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) return nullptr;
        runner_of_thread = new Runner();
        runner_of_thread->stacks = static_cast<char*>(stacks);
        owner.runner = runner_of_thread;
    }
    return runner_of_thread;
}

// Never inlined: a compiler may keep the address of a thread's variable, and that stays right, as fibers do not change threads.
void to_scheduler(Runner& r) { change(r.fibers[r.fiber], r.scheduler); }

// Ends the block from within a kernel; the fiber is not resumed.
template <class... A>
void fail(Runner& r, const char* format, A... values) {
    if (!r.failed) snprintf(r.message, sizeof(r.message), format, values...);
    r.failed = true;
    to_scheduler(r);
    abort();
}

// A fiber's life: start threads as long as none waits. One that waited comes back here when it is over.
void fiber() {
    for (;;) {
        Runner& r = *runner_of_thread;
        while (r.next < r.count) {
            const unsigned t = r.order[r.next++];
            r.threads[t].state = State::Ready;
            r.threads[t].shuffles = 0;
            r.threads[t].fiber = r.fiber;
            threadIdx.x = t;
            r.kernel->call(r.args);
            r.threads[threadIdx.x].state = State::Done;
            r.done++;
        }
        to_scheduler(r);
    }
}

void resume(Runner& r, unsigned fiber_index) {
    r.fiber = fiber_index;
    change(r.scheduler, r.fibers[fiber_index]);
}

// Opens the barrier at which all of these threads wait; whether there was one.
bool open_barrier(Runner& r, State at, unsigned first, unsigned end) {
    for (unsigned t = first; t < end; t++) {
        if (r.threads[t].state != at || r.threads[t].line != r.threads[first].line) return false;
    }
    for (unsigned t = first; t < end; t++) r.threads[t].state = State::Ready;
    return true;
}

// Runs what can run of the threads `order[begin..end]`; starts those that were not yet.
void run_threads(Runner& r, unsigned begin, unsigned end) {
    for (unsigned i = begin; i < end && i < r.next && !r.failed; i++) {
        const unsigned t = r.order[i];
        if (r.threads[t].state != State::Ready) continue;
        threadIdx.x = t;
        resume(r, r.threads[t].fiber);
    }
    while (r.next < end && !r.failed) {
        if (r.used == r.prepared) {
            char* stack = r.stacks + STACK * r.used;
            memcpy(stack, &CANARY, sizeof(CANARY));
            prepare(r.fibers[r.used], stack, fiber);
            r.prepared++;
        }
        resume(r, r.used++);
    }
}

// Warp after warp runs as far ahead of the others as barriers let it, so that a missing one shows.
void run_block(Runner& r) {
    r.next = r.done = r.used = 0;
    while (r.done < r.count && !r.failed) {
        for (unsigned begin = 0; begin < r.count && !r.failed; begin += WARP) {
            const unsigned end = begin + WARP < r.count ? begin + WARP : r.count;
            const unsigned first = r.order[begin] / WARP * WARP;
            do {
                run_threads(r, begin, end);
            } while (!r.failed && open_barrier(r, State::AtWarpBarrier, first, first + (end - begin)));
        }
        if (r.done == r.count || r.failed || open_barrier(r, State::AtBlockBarrier, 0, r.count)) continue;
        unsigned line = 0;
        for (unsigned t = 0; t < r.count; t++) {
            if (r.threads[t].state != State::Done) line = r.threads[t].line;
        }
        snprintf(r.message, sizeof(r.message),
                 "%u of %u threads wait at barriers (one in line %u) that the others never reach; %u have ended",
                 r.count - r.done, r.count, line, r.done);
        r.failed = true;
    }
    for (unsigned i = 0; i < r.prepared; i++) {
        if (memcmp(r.stacks + STACK * i, &CANARY, sizeof(CANARY)) == 0) continue;
        snprintf(r.message, sizeof(r.message), "a thread's stack overflowed");
        r.failed = true;
    }
    // Fibers that were left in the middle of a kernel cannot be used again.
    if (r.failed) r.prepared = 0;
}

// Shuffles with a linear congruential generator.
void shuffle(unsigned* x, unsigned len, uint64_t& state) {
    for (; len > 1; len--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const unsigned other = static_cast<unsigned>((state >> 33) % len);
        const unsigned kept = x[len - 1];
        x[len - 1] = x[other];
        x[other] = kept;
    }
}

// The order in which threads run between barriers: 0 forward, 1 backward, else warps and the lanes of each shuffled. The last
// warp stays the last of all if it is not whole.
void set_order(Runner& r, unsigned seed) {
    unsigned warps[MOST_THREADS / WARP];
    const unsigned whole = r.count / WARP;
    uint64_t state = seed;
    for (unsigned w = 0; w < whole; w++) warps[w] = seed == 1 ? whole - 1 - w : w;
    if (seed > 1) shuffle(warps, whole, state);
    for (unsigned begin = 0; begin < r.count; begin += WARP) {
        const unsigned len = begin + WARP < r.count ? WARP : r.count - begin;
        const unsigned first = begin / WARP < whole ? warps[begin / WARP] * WARP : begin;
        for (unsigned i = 0; i < len; i++) r.order[begin + i] = first + (seed == 1 ? len - 1 - i : i);
        if (seed > 1) shuffle(r.order + begin, len, state);
    }
}

}  // namespace

extern "C" void reid_block_barrier(int line) {
    Runner& r = *runner_of_thread;
    Thread& own = r.threads[threadIdx.x];
    own.state = State::AtBlockBarrier;
    own.line = line;
    to_scheduler(r);
}

extern "C" unsigned long long reid_shuffle(unsigned mask, unsigned long long value, unsigned lane, int line) {
    Runner& r = *runner_of_thread;
    const unsigned t = threadIdx.x, source = t / WARP * WARP + lane;
    if (mask != 0xffffffffu || lane >= WARP || source >= r.count) {
        fail(r, "a shuffle in line %d with threads that are not there", line);
    }
    Thread& own = r.threads[t];
    const unsigned slot = own.shuffles++ % 2;
    own.handed[slot] = value;
    own.state = State::AtWarpBarrier;
    own.line = line;
    to_scheduler(r);
    return r.threads[source].handed[slot];
}

// ---- What the compiler's checks of alignment, null pointers and array bounds call ----

namespace {
struct Where {
    const char* file;
    unsigned line, column;
};
}  // namespace

extern "C" void __ubsan_handle_type_mismatch_v1(const Where* where, uintptr_t address) {
    fail(*runner_of_thread, "an access to address %#zx that is null or not aligned, %s:%u", static_cast<size_t>(address),
         where->file, where->line);
}
extern "C" void __ubsan_handle_out_of_bounds(const Where* where, uintptr_t index) {
    fail(*runner_of_thread, "index %zu outside of an array, %s:%u", static_cast<size_t>(index), where->file, where->line);
}

// ---- For Rust ----

extern const ReidKernel* const reid_modules[];

extern "C" int reid_kernel(unsigned index, const char** module, const char** name, const char** parameters) {
    for (const ReidKernel* const* kernels = reid_modules; *kernels; kernels++) {
        for (const ReidKernel* kernel = *kernels; kernel->name; kernel++) {
            if (index-- == 0) {
                *module = kernel->module;
                *name = kernel->name;
                *parameters = kernel->parameters;
                return 1;
            }
        }
    }
    return 0;
}

// Runs blocks [first, first + blocks) of the grid, counted with x fastest. 0, or 1 with a message.
extern "C" int reid_emulate(const char* name, const unsigned* grid, unsigned block, void* const* args, unsigned seed,
                            unsigned long long first, unsigned long long blocks, char* error, size_t error_len) {
    const ReidKernel* kernel = nullptr;
    for (const ReidKernel* const* kernels = reid_modules; *kernels && !kernel; kernels++) {
        for (const ReidKernel* k = *kernels; k->name; k++) {
            if (strcmp(k->name, name) == 0) kernel = k;
        }
    }
    Runner* r = runner();
    if (!kernel || !r || block == 0 || block > MOST_THREADS) {
        snprintf(error, error_len, "%s: no such kernel, or blocks of %u threads", name, block);
        return 1;
    }
    r->kernel = kernel;
    r->args = args;
    r->count = block;
    r->failed = false;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block, 1, 1};
    threadIdx = {0, 0, 0};
    set_order(*r, seed);
    for (unsigned long long i = 0; i < blocks; i++) {
        const unsigned long long at = first + (seed == 1 ? blocks - 1 - i : i);
        blockIdx = {static_cast<unsigned>(at % grid[0]), static_cast<unsigned>(at / grid[0] % grid[1]),
                    static_cast<unsigned>(at / grid[0] / grid[1])};
        run_block(*r);
        if (r->failed) {
            snprintf(error, error_len, "%s, block (%u, %u, %u): %s", name, blockIdx.x, blockIdx.y, blockIdx.z, r->message);
            return 1;
        }
    }
    return 0;
}
