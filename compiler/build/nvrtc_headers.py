"""The few declarations that TVM's CUDA C takes from headers which NVRTC's packages do not bring.

TVM writes ``#include <cuda/std/cstdint>`` and ``<cuda/std/type_traits>``, and NVIDIA's ``cuda_fp16.h``
wants ``<nv/target>``; all three belong to a CUDA toolkit. Device code needs a dozen lines of them, so they
are handed to NVRTC from memory, and what is built does not depend on whether a toolkit is installed.
"""

from __future__ import annotations

_CSTDINT = """\
#pragma once
namespace cuda { namespace std {
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
} }
"""

_TYPE_TRAITS = """\
#pragma once
namespace cuda { namespace std {
template <bool B> struct bool_constant { static constexpr bool value = B; };
template <class A, class B> struct is_same : bool_constant<false> {};
template <class A> struct is_same<A, A> : bool_constant<true> {};
template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;
template <class A> struct remove_cv { using type = A; };
template <class A> struct remove_cv<const A> { using type = A; };
template <class A> struct remove_cv<volatile A> { using type = A; };
template <class A> struct remove_cv<const volatile A> { using type = A; };
template <class A, class... Rest>
struct is_one_of : bool_constant<(is_same_v<typename remove_cv<A>::type, Rest> || ...)> {};
template <class A> struct is_integral : is_one_of<A, bool, char, signed char, unsigned char, short,
    unsigned short, int, unsigned int, long, unsigned long, long long, unsigned long long> {};
template <class A> struct is_floating_point : is_one_of<A, float, double> {};
template <class A, bool Integral = is_integral<A>::value>
struct is_signed : is_floating_point<A> {};
template <class A> struct is_signed<A, true> : bool_constant<(A(-1) < A(0))> {};
template <class A, bool Integral = is_integral<A>::value> struct is_unsigned : bool_constant<false> {};
template <class A> struct is_unsigned<A, true> : bool_constant<(A(0) < A(-1))> {};
template <> struct is_unsigned<bool, true> : bool_constant<true> {};
template <bool B, class A = void> struct enable_if {};
template <class A> struct enable_if<true, A> { using type = A; };
template <bool B, class A, class C> struct conditional { using type = A; };
template <class A, class C> struct conditional<false, A, C> { using type = C; };
} }
"""

# NV_IF_TARGET(condition, (code)[, (else)]) keeps one of two pieces of code; each condition is 0 or 1.
_TARGET = """\
#pragma once
#define KILN_JOIN(a, b) a##b
#define KILN_BARE(...) __VA_ARGS__
#define KILN_IF_1(yes, ...) KILN_BARE yes
#define KILN_IF_0(yes, no, ...) KILN_BARE no
#define KILN_IF(condition, ...) KILN_JOIN(KILN_IF_, condition)(__VA_ARGS__, ())
#define NV_IF_TARGET(condition, ...) KILN_IF(condition, __VA_ARGS__)
#define NV_IF_ELSE_TARGET(condition, yes, no) KILN_IF(condition, yes, no)
#define NV_IS_DEVICE 1
#define NV_IS_HOST 0
#define NV_ANY_TARGET 1
#define NV_NO_TARGET 0
"""
_CAPABILITIES = (35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)


def headers(capability: int) -> dict[str, str]:
    """Return header texts by the name they are included under.

    `capability` is the compute capability that is compiled for, times ten (87 for ``sm_87``).
    """
    provided = "".join(
        f"#define NV_PROVIDES_SM_{number} {int(number <= capability)}\n"
        f"#define NV_IS_EXACTLY_SM_{number} {int(number == capability)}\n"
        for number in _CAPABILITIES
    )
    return {
        "cuda/std/cstdint": _CSTDINT,
        "cuda/std/type_traits": _TYPE_TRAITS,
        "nv/target": _TARGET + provided,
    }
