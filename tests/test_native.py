"""C++ that the machine's own compiler makes: once, whole, or not at all."""

import pytest

from widthwise import native

load = native.load.__wrapped__


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "seven.cpp"
    path.write_text('extern "C" int seven() { return 7; }')
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "false"])
def test_without_a_compiler_there_is_no_library(compiler, source, cache, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    assert load(source) is None
    assert not list(cache.rglob("*.so"))


def test_a_library_is_compiled_once_for_a_processor_and_left_whole(source, cache, monkeypatch):
    made = load(source)
    if made is None:
        pytest.skip("no C++ compiler (CXX, c++)")
    assert made.seven() == 7
    (kept,) = cache.rglob("*.so")
    monkeypatch.setattr(native, "_compile", None)
    assert load(source).seven() == 7
    assert list(kept.parent.iterdir()) == [kept]
    source.write_text('extern "C" int seven() { return 8; }')
    with pytest.raises(TypeError):  # another source is another library
        load(source)


def test_a_compiler_that_knows_no_threads_makes_one_without(source, cache, monkeypatch, tmp_path):
    if load(source) is None:
        pytest.skip("no C++ compiler (CXX, c++)")
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *{native.THREADS}*) exit 1;; esac\nexec ${{REAL:-c++}} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("REAL", native.os.environ.get("CXX", "c++"))
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert load(source).seven() == 7
    assert len(list((tmp_path / "other").rglob("*.so"))) == 1
