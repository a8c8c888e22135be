"""Damage that knows nothing of formats: bits, bytes, blocks, numbers over fields, splices."""

import struct
from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (0, -1, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)
WIDTHS = {1: "b", 2: "h", 4: "i", 8: "q"}


def mutate_bytes(rng: Random, content: bytes, others: Sequence[bytes]) -> tuple[bytes, str]:
    """Returns damaged bytes and what was done; `others` are files to splice parts of."""
    if not content:
        return rng.randbytes(rng.randint(1, 64)), "filled"
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutator = rng.choice(MUTATORS)
        content = mutator(rng, content, others)
        names.append(mutator.__name__.strip("_"))
    return content, " and ".join(names)


def flip_bit(content: bytes, place: int) -> bytes:
    """Returns the content with one bit, counted from its start, flipped."""
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def _bits(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8))):
        content = flip_bit(content, rng.randrange(8 * len(content))) if content else content
    return content


def _bytes(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 4)) if content else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    place = rng.randint(0, len(content))
    return content[place:] if rng.random() < 0.2 else content[:place]


def _insertion(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    place = rng.randint(0, len(content))
    return content[:place] + rng.randbytes(rng.choice((1, 2, 16))) + content[place:]


def _deletion(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _block(rng, content)
    return content[:start] + content[end:]


def _swap(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    a, b, c, d = sorted(rng.randint(0, len(content)) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _repetition(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _block(rng, content)
    return content[:end] + content[start:end] * rng.choice((1, 1, 2, 50)) + content[end:]


def _number(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    width = rng.choice(list(WIDTHS))
    number = rng.choice(NUMBERS) & (1 << 8 * width) - 1
    place = rng.randint(0, max(0, len(content) - width))
    written = struct.pack(rng.choice("<>") + WIDTHS[width].upper(), number)
    return content[:place] + written + content[place + width :]


def _splice(rng: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    start, end = _block(rng, other)
    place = rng.randint(0, len(content))
    behind = rng.choice((place, min(len(content), place + end - start)))
    return content[:place] + other[start:end] + content[behind:]


def _block(rng: Random, content: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(content))
    return start, min(len(content), start + rng.choice((1, 4, 32, 256)))


MUTATORS: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_bits, _bytes, _cut, _insertion, _deletion, _swap, _repetition, _number, _splice),
)
