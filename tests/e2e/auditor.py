"""An auditor who has read the specifications and none of our code.

C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles, tlog-proof; RFC 6962 section 2.1.

    auditor.py verify FOLDER KEY     the whole log, by all of its tiles and entries
    auditor.py proof FILE KEY        a detached proof

Prints what it found as JSON; exits with 1 and says why where anything is wrong.
"""

import base64
import datetime
import hashlib
import json
import os
import re
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey


TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


class Wrong(Exception):
    pass


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf(entry):
    return sha256(b"\x00" + entry)


def node(left, right):
    return sha256(b"\x01" + left + right)


def tree(hashes):
    """MTH of hashes of leaves, or of whole subtrees of one height."""
    if not hashes:
        return sha256(b"")
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node(tree(hashes[:split]), tree(hashes[split:]))


class Key:
    def __init__(self, text):
        first, *second = text.strip().split("\n")
        self.name, self.hash, key = first.split("+", 2)
        raw = base64.b64decode(key, validate=True)
        if raw[0] != 1 or len(raw) != 33:
            raise Wrong("not an Ed25519 key")
        self.raw = raw[1:]
        if self.id(1).hex() != self.hash:
            raise Wrong("the hash of the key is wrong")
        self.public = Ed25519PublicKey.from_public_bytes(self.raw)
        self.second = SecondKey(self.name, *second) if second else None

    def id(self, kind):
        return key_id(self.name, kind, self.raw)


class SecondKey:
    """ML-DSA-44, of the log itself."""

    def __init__(self, log, text):
        self.name, digest, key = text.split("+", 2)
        raw = base64.b64decode(key, validate=True)
        if raw[0] != 6 or self.name != log:
            raise Wrong("not an ML-DSA-44 key of this log")
        self.id = key_id(self.name, 6, raw[1:])
        if self.id.hex() != digest:
            raise Wrong("the hash of the second key is wrong")
        self.public = MLDSA44PublicKey.from_public_bytes(raw[1:])

    def verify(self, signature, size, root):
        name = self.name.encode()
        named = bytes([len(name)]) + name
        time, (start, end) = signature[:8], (struct.pack(">Q", 0), struct.pack(">Q", size))
        message = b"subtree/v1\n\0" + named + time + named + start + end + root
        self.public.verify(signature[8:], message)
        return struct.unpack(">Q", time)[0]


def key_id(name, kind, raw):
    return sha256(name.encode() + b"\n" + bytes([kind]) + raw)[:4]


def open_checkpoint(note, key):
    text, separator, signatures = note.rpartition(b"\n\n")
    if not separator:
        raise Wrong("no signatures")
    text += b"\n"
    origin, size, root = text.decode().splitlines()
    root = base64.b64decode(root, validate=True)
    plain = timed = second = None
    for line in signatures.decode().splitlines():
        dash, name, encoded = line.split(" ")
        if dash != "\u2014":
            raise Wrong("not a signature line")
        if name != key.name:
            continue
        signature = base64.b64decode(encoded, validate=True)
        try:
            if signature[:4] == key.id(1):
                key.public.verify(signature[4:], text)
                plain = True
            elif signature[:4] == key.id(4):
                (timed,) = struct.unpack(">Q", signature[4:12])
                key.public.verify(signature[12:], b"cosignature/v1\ntime %d\n" % timed + text)
            elif key.second and signature[:4] == key.second.id:
                second = key.second.verify(signature[4:], int(size), root)
        except InvalidSignature:
            raise Wrong("a signature is wrong")
    if not plain or timed is None:
        raise Wrong("not signed")
    if key.second and second != timed:
        raise Wrong("not signed by the second key")
    if origin != key.name or str(int(size)) != size:
        raise Wrong("another origin, or a size that is none")
    return int(size), root, timed


def number(index):
    parts = ["%03d" % (index % 1000)]
    while index >= 1000:
        index //= 1000
        parts.insert(0, "x%03d" % (index % 1000))
    return "/".join(parts)


def read(folder, kind, index, width):
    path = os.path.join(folder, "tile", str(kind), number(index))
    for name, cut in ([(path, False)] if width == 256 else [(path + ".p/%d" % width, False), (path, True)]):
        try:
            with open(name, "rb") as file:
                return file.read(), cut
        except (FileNotFoundError, NotADirectoryError):
            pass
    raise Wrong("missing: %s of width %d" % (path, width))


def hashes_of(folder, level, index, width):
    data, cut = read(folder, level, index, width)
    if len(data) != 32 * (256 if cut else width):
        raise Wrong("tile %d/%d has %d bytes" % (level, index, len(data)))
    return [data[at : at + 32] for at in range(0, 32 * width, 32)]


def entries_of(folder, index, width):
    data, cut = read(folder, "entries", index, width)
    entries, at = [], 0
    while at < len(data):
        (length,) = struct.unpack(">H", data[at : at + 2])
        entry = data[at + 2 : at + 2 + length]
        if len(entry) != length:
            raise Wrong("bundle %d is cut off" % index)
        entries.append(entry)
        at += 2 + length
    if len(entries) != (256 if cut else width):
        raise Wrong("bundle %d has %d entries" % (index, len(entries)))
    return entries[:width]


def verify(folder, key):
    with open(os.path.join(folder, "checkpoint"), "rb") as file:
        size, root, time = open_checkpoint(file.read(), key)
    digest, acts = hashlib.sha256(), {}
    below = []
    for index in range((size + 255) // 256):
        for entry in entries_of(folder, index, min(256, size - index * 256)):
            below.append(leaf(entry))
            digest.update(entry)
            try:
                read = json.loads(entry)
                act = read["act"]
                if not TIME.fullmatch(read["time"]):
                    raise ValueError
                # That there is such a day and hour.
                datetime.datetime.fromisoformat(read["time"][:19])
            except (ValueError, KeyError, TypeError):
                raise Wrong("entry %d is none" % (len(below) - 1))
            acts[act] = acts.get(act, 0) + 1
    if tree(below) != root:
        raise Wrong("the entries come to another root")
    level = 0
    while below:
        for index in range((len(below) + 255) // 256):
            wanted = below[index * 256 : (index + 1) * 256]
            if hashes_of(folder, level, index, len(wanted)) != wanted:
                raise Wrong("tile %d/%d has other hashes" % (level, index))
        below = [tree(below[at : at + 256]) for at in range(0, len(below) // 256 * 256, 256)]
        level += 1
    return {"size": size, "root": base64.b64encode(root).decode(), "time": time, "entries": digest.hexdigest(), "acts": acts}


def proof(path, key):
    with open(path, "rb") as file:
        head, _, note = file.read().partition(b"\n\n")
    first, extra, index, *lines = head.decode().split("\n")
    if first != "c2sp.org/tlog-proof@v1" or not extra.startswith("extra ") or not index.startswith("index "):
        raise Wrong("not a proof")
    entry, index = base64.b64decode(extra[6:], validate=True), int(index[6:])
    size, root, _ = open_checkpoint(note, key)
    # RFC 9162, section 2.1.3.2.
    if index >= size:
        raise Wrong("beyond the end")
    at, last, found = index, size - 1, leaf(entry)
    for line in lines:
        sibling = base64.b64decode(line, validate=True)
        if last == 0:
            raise Wrong("too many hashes")
        if at & 1 or at == last:
            found = node(sibling, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, sibling)
        at, last = at >> 1, last >> 1
    if last != 0 or found != root:
        raise Wrong("not included")
    return {"index": index, "size": size, "entry": json.loads(entry)}


if __name__ == "__main__":
    try:
        what = {"verify": verify, "proof": proof}[sys.argv[1]]
        print(json.dumps(what(sys.argv[2], Key(sys.argv[3]))))
    except (Wrong, OSError, ValueError, struct.error) as error:
        sys.exit("wrong: %s" % error)
