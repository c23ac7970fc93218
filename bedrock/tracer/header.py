"""The layout of a trace in C: what the probes and the loader are compiled with."""

from __future__ import annotations

import enum

from bedrock.tracer.causes import Cause, Feature
from bedrock.tracer.format import (
    BLOCK_HEADER,
    COLUMNS,
    FILE_HEADER,
    HISTOGRAM_BUCKETS,
    LAYOUT,
    MAGIC,
    MAX_PREFIX_BYTES,
    MAX_PREFIXES,
    NOTE_ENTRY,
    SKIPPABLE,
    VERSION,
    CallFlag,
    Field,
    Mode,
    RecordType,
    TextFlag,
    size_of,
    split_kind,
)
from bedrock.tracer.operations import Op

_PREFIXES: dict[type[enum.IntEnum | enum.IntFlag], str] = {
    Mode: "MODE",
    RecordType: "REC",
    Op: "OP",
    CallFlag: "CALL",
    TextFlag: "TEXT",
    Cause: "CAUSE",
    Feature: "FEATURE",
}
_SHAPE = ("path", "second", "base", "second_base", "fd", "offset", "size", "arg", "has_text")
_C = {"u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i32": "int32_t", "i64": "int64_t"}


def _c_field(field: Field) -> str:
    name, count = split_kind(field.kind)
    return f"\t{_C[name]} {field.name}[{count}];" if count else f"\t{_C[name]} {field.name};"


def c_header() -> str:
    """The text of ``bdt_format.h``."""
    lines = ["/* Generated from bedrock/tracer/format.py; see there for what each field means. */", "#pragma once", ""]
    lines += [f"#define BDT_MAGIC 0x{int.from_bytes(MAGIC, 'little'):x}ULL", f"#define BDT_VERSION {VERSION}"]
    lines += [f"#define BDT_SKIPPABLE 0x{SKIPPABLE:x}u", f"#define BDT_BUCKETS {HISTOGRAM_BUCKETS}", ""]
    for kind, prefix in _PREFIXES.items():
        lines += ["enum {", *(f"\tBDT_{prefix}_{item.name} = {item.value}," for item in kind), "};", ""]
    lines += [f"#define BDT_CAUSES {len(Cause)}", ""]
    for name, fields in [
        ("file_header", FILE_HEADER),
        ("block_header", BLOCK_HEADER),
        ("note_entry", NOTE_ENTRY),
        *((kind.name.lower(), fields) for kind, fields in LAYOUT.items()),
    ]:
        lines += [f"struct bdt_{name} {{", *map(_c_field, fields), "};"]
        size = size_of(fields)
        lines += [f'_Static_assert(sizeof(struct bdt_{name}) == {size}, "layout of bdt_{name}");', ""]
    lines += ["/* The columns of a block, in order: X(C type, name). */", "#define BDT_COLUMNS(X) \\"]
    lines += [" \\\n".join(f"\tX({_C[field.kind]}, {field.name})" for field in COLUMNS), ""]
    lines += ["/* Which argument of a call is what, counted from 1; 0 for none. */", "struct bdt_shape {"]
    lines += [*(f"\tuint8_t {name};" for name in _SHAPE), "};", ""]
    lines += [f"#define BDT_MAX_PREFIXES {MAX_PREFIXES}", f"#define BDT_MAX_PREFIX {MAX_PREFIX_BYTES}"]
    lines += ["/* A path that was asked for, as it stands in a FILE record. */", "struct bdt_prefix {"]
    lines += ["\tuint32_t size;", "\tchar text[BDT_MAX_PREFIX];", "};", ""]
    return "\n".join(lines)
