"""How much stack the probes' call chains take, read from the compiled object.

Kernels before 6.13 give a chain of BPF functions 512 bytes together and eight frames, and refuse what takes more; the
verifier counts each function's deepest store, rounded up to 32 bytes (kernel/bpf/verifier.c, check_max_stack_depth).
Compilers differ in what they put there, so the build looks at its own result before a kernel does.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

LIMIT_BYTES = 512
LIMIT_FRAMES = 8
_ROUND = 32
_INSTRUCTION = 8
_FRAME_POINTER = 10
_JMP, _JMP32, _CALL = 0x05, 0x06, 0x85
_LOAD_ADDRESS = 0x18
_PSEUDO_CALL, _PSEUDO_FUNC = 1, 4
_SHT_SYMTAB, _SHT_REL = 2, 9
_STT_NOTYPE, _STT_FUNC, _STT_SECTION = 0, 2, 3


class Chain(NamedTuple):
    """The deepest chain of calls from one program on, with what each function takes, in bytes."""

    functions: list[tuple[str, int]]

    @property
    def stack_bytes(self) -> int:
        return sum(size for _, size in self.functions)

    def __str__(self) -> str:
        return " > ".join(f"{name} {size}" for name, size in self.functions)


class _Function(NamedTuple):
    section: int
    begin: int
    end: int
    name: str


class _Object:
    """As much of a relocatable ELF file (System V ABI, 64-bit little-endian) as is needed here."""

    def __init__(self, content: bytes) -> None:
        at, count, names = struct.unpack_from("<Q", content, 40)[0], *struct.unpack_from("<HH", content, 60)
        heads = [struct.unpack_from("<IIQQQQIIQQ", content, at + 64 * number) for number in range(count)]
        self.data = [content[head[4] : head[4] + head[5]] for head in heads]
        self.names = [_text(self.data[names], head[0]) for head in heads]
        self.symbols: list[tuple[str, int, int, int, int]] = []  # name, type, section, value, size
        self.relocations: dict[tuple[int, int], int] = {}  # section and offset to symbol
        for number, head in enumerate(heads):
            if head[1] == _SHT_SYMTAB:
                for name, info, _, section, value, size in struct.iter_unpack("<IBBHQQ", self.data[number]):
                    self.symbols.append((_text(self.data[head[6]], name), info & 15, section, value, size))
            elif head[1] == _SHT_REL:
                for offset, info in struct.iter_unpack("<QQ", self.data[number]):
                    self.relocations[head[7], offset] = info >> 32


def deepest_chains(content: bytes) -> list[Chain]:
    """The deepest chain of each program in a BPF object, deepest first."""
    found = _Object(content)
    functions = {
        (section, value): _Function(section, value, value + size, name)
        for name, kind, section, value, size in found.symbols
        if kind == _STT_FUNC
    }
    depths = {at: _depth(found, function) for at, function in functions.items()}
    callees = {at: _callees(found, function, functions) for at, function in functions.items()}
    known: dict[tuple[int, int], list[tuple[str, int]]] = {}

    def chain(at: tuple[int, int]) -> list[tuple[str, int]]:
        if at not in known:
            below = max((chain(callee) for callee in callees[at]), key=_bytes, default=[])
            known[at] = [(functions[at].name, depths[at]), *below]
        return known[at]

    called = {callee for each in callees.values() for callee in each}
    chains = [Chain(chain(at)) for at in functions if at not in called]
    return sorted(chains, key=lambda each: -each.stack_bytes)


def _bytes(chain: list[tuple[str, int]]) -> int:
    return sum(size for _, size in chain)


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()


def _instructions(found: _Object, function: _Function) -> list[tuple[int, int, int, int, int, int]]:
    """Offset in the section, opcode, destination, source, offset and immediate of each instruction."""
    code, at, result = found.data[function.section], function.begin, []
    while at < function.end:
        opcode, registers, offset, immediate = struct.unpack_from("<BBhi", code, at)
        result.append((at, opcode, registers & 15, registers >> 4, offset, immediate))
        at += 2 * _INSTRUCTION if opcode == _LOAD_ADDRESS else _INSTRUCTION
    return result


def _depth(found: _Object, function: _Function) -> int:
    """Bytes of stack: the lowest address that is stored to, or that is passed on."""
    deepest = 0
    copies: set[int] = set()  # registers that hold the frame pointer at the moment
    for _, opcode, destination, source, offset, immediate in _instructions(found, function):
        kind = opcode & 7
        if kind in {1, 2, 3}:  # load, store of a constant, store
            base = source if kind == 1 else destination
            if base == _FRAME_POINTER:
                deepest = min(deepest, offset)
            if kind == 1:
                copies.discard(destination)
        elif opcode == 0xBF and source == _FRAME_POINTER:
            copies.add(destination)
        elif opcode == 0x07 and destination in copies:
            deepest = min(deepest, immediate)
            copies.discard(destination)
        elif kind in {4, 7, 0}:
            copies.discard(destination)
    return max(-(deepest // _ROUND) * _ROUND, _ROUND)


def _callees(found: _Object, function: _Function, functions: dict[tuple[int, int], _Function]) -> set[tuple[int, int]]:
    """The functions that this one calls, or hands to a helper that calls them."""
    result = set()
    for at, opcode, _, source, _, immediate in _instructions(found, function):
        is_call = opcode == _CALL and source == _PSEUDO_CALL
        symbol = found.relocations.get((function.section, at))
        if symbol is None:
            if is_call:
                result.add((function.section, at + (immediate + 1) * _INSTRUCTION))
            continue
        _, kind, section, value, _ = found.symbols[symbol]
        target = value
        if kind == _STT_SECTION:
            # The addend is in the instruction: words for a call, bytes for an address.
            target = (immediate + 1) * _INSTRUCTION if is_call else immediate
        if (is_call or opcode == _LOAD_ADDRESS) and (section, target) in functions:
            result.add((section, target))
    return result
