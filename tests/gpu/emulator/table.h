// How the emulator knows a kernel: its name, its parameters, and a function that calls it with them.
#pragma once

#include <stddef.h>
#include <utility>

struct ReidKernel {
    const char* module;
    const char* name;
    // A letter per parameter: p pointer, i int, l long long, f float, d double.
    const char* parameters;
    // Calls the kernel as one thread; `args` holds the address of each argument.
    void (*call)(void* const* args);
};

template <class T>
struct ReidLetter;
template <class T>
struct ReidLetter<T*> {
    static constexpr char of = 'p';
};
template <>
struct ReidLetter<int> {
    static constexpr char of = 'i';
};
template <>
struct ReidLetter<unsigned> {
    static constexpr char of = 'i';
};
template <>
struct ReidLetter<long long> {
    static constexpr char of = 'l';
};
template <>
struct ReidLetter<float> {
    static constexpr char of = 'f';
};
template <>
struct ReidLetter<double> {
    static constexpr char of = 'd';
};

template <auto F>
struct ReidCall;
template <class... A, void (*F)(A...)>
struct ReidCall<F> {
    static constexpr char parameters[] = {ReidLetter<A>::of..., 0};

    template <size_t... I>
    static void unpacked(void* const* args, std::index_sequence<I...>) {
        F(*static_cast<A*>(args[I])...);
    }
    static void call(void* const* args) { unpacked(args, std::index_sequence_for<A...>()); }
};

#define REID_KERNEL(MODULE, NAME) {MODULE, #NAME, ReidCall<NAME>::parameters, ReidCall<NAME>::call}
