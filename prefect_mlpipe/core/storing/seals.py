"""Seals: how a reader knows that a document is whole, and whose it is.

Knows bytes and the name that they stand under. Knows nothing of what is in them.

    {"checksum":"3f9c…","content":{…}}                       whole, whoever wrote it
    {"checksum":"3f9c…","signature":"07be…","content":{…}}   written by somebody who has the key

A sealed document is JSON that any program reads. The checksum is blake3 of the content's bytes; the
signature is keyed blake3 of the name and those bytes, so that what is right in one place is not
right in another. Whoever has a key believes nothing without a signature of that key; whoever has
none looks at the checksum alone.

Worth arguing: a signature covers stored values too, though it never sees them. A reference holds
the checksum of the bytes, stands in a signed document, and is compared before a format reads them.
"""

from __future__ import annotations

from hmac import compare_digest

from blake3 import blake3

SHORTEST_KEY = 16  # characters; below, a key can be found by trying

_PURPOSE = "prefect_mlpipe 2026-11 signatures of the documents of a store"
_HEAD = b'{"checksum":"'
_SIGNED = b'","signature":"'
_CONTENT = b'","content":'
_HEX = 64
_CHECKSUM = slice(len(_HEAD), len(_HEAD) + _HEX)
_AFTER = _CHECKSUM.stop
_SIGNATURE = slice(_AFTER + len(_SIGNED), _AFTER + len(_SIGNED) + _HEX)


class Unsealed(Exception):
    """A document that is not believed.

    Attributes:
        unsigned: whether it may be whole, but was not signed with our key for this name.
    """

    def __init__(self, why: str, unsigned: bool = False) -> None:
        super().__init__(why)
        self.unsigned = unsigned


class Seal:
    """Seals documents and looks at seals, with a key or without.

    Args:
        key: what all who may write into the store know, and nobody else.

    Raises:
        ValueError: the key is too short.
    """

    def __init__(self, key: str | None = None) -> None:
        if key is not None and len(key) < SHORTEST_KEY:
            raise ValueError(f"a signing key has {SHORTEST_KEY} characters or more")
        self._key: bytes | None = None
        if key is not None:
            self._key = blake3(key.encode(), derive_key_context=_PURPOSE).digest()

    @property
    def signs(self) -> bool:
        """Tell whether there is a key."""
        return self._key is not None

    def close(self, name: str, content: bytes) -> bytes:
        """Seal the content of a document that is to stand under a name."""
        checksum = blake3(content).hexdigest().encode()
        if self._key is None:
            return b"".join((_HEAD, checksum, _CONTENT, content, b"}"))
        signature = self._signed(name, content)
        return b"".join((_HEAD, checksum, _SIGNED, signature, _CONTENT, content, b"}"))

    def signature(self, name: str, content: bytes) -> str | None:
        """Sign something that is not a document of a store; `None` without a key."""
        return None if self._key is None else self._signed(name, content).decode()

    def open(self, name: str, data: bytes) -> bytes:
        """Give the content of a sealed document.

        Raises:
            Unsealed: it is damaged, or not signed with the key for this name.
        """
        signed = data[_AFTER : _AFTER + len(_SIGNED)] == _SIGNED
        content = data[(_SIGNATURE.stop if signed else _AFTER) + len(_CONTENT) : -1]
        if self._key is None:
            if data[_CHECKSUM] != blake3(content).hexdigest().encode():
                raise Unsealed("damaged")
        elif not signed:
            raise Unsealed("not signed", unsigned=True)
        elif not compare_digest(data[_SIGNATURE], self._signed(name, content)):
            whole = data[_CHECKSUM] == blake3(content).hexdigest().encode()
            why = "signed with another key, or for another place" if whole else "damaged"
            raise Unsealed(why, unsigned=whole)
        return content

    def _signed(self, name: str, content: bytes) -> bytes:
        assert self._key is not None
        signed = len(name).to_bytes(8, "little") + name.encode() + content
        return blake3(signed, key=self._key).hexdigest().encode()
