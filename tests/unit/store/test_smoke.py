from pathlib import Path
from carmel.resources.core import SECRET, NAMESPACE
from tests.stores import open_store
from carmel.store.protocol import *
from carmel.errors import *
import pytest

async def test_life(tmp_path: Path):
    async with open_store(tmp_path) as s:
        async with s.watch(SECRET) as w:
            a = await s.create(SECRET, {"metadata": {"name": "a", "namespace": "default"}, "stringData": {"k": "v"}})
            b = a.json(); b["data"]["k"]="YQ=="
            c = await s.replace(SECRET, b)
            with pytest.raises(Conflict): await s.replace(SECRET, b | {"type":"x"})
            assert (await s.replace(SECRET, c.json())) == c
            d = await s.patch(SECRET, "default", "a", b'{"metadata":{"labels":{"x":"y"}}}', PatchType.MERGE)
            e = await s.delete(SECRET, "default", "a")
            evs=[await anext(w) for _ in range(4)]
            assert [x.object for x in evs]==[a,c,d,e]
            print(e.json())
    async with open_store(tmp_path) as s:
        assert (await s.list(NAMESPACE)).items[0].name == "default"
