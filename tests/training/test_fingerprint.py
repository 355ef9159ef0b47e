"""The fingerprint is the same wherever the same is computed, and differs where something else is."""

import functools
import io
import itertools
import os
import pty
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.experimental import pallas
from jax.extend.core import Primitive
from jax.sharding import AxisType, PartitionSpec

from sgdscope.training.fingerprint import fingerprint

X = jnp.arange(4, dtype=jnp.float32)


def of(function, *arguments):
    return fingerprint(jax.make_jaxpr(function)(*(arguments or (X,))))


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (x / 2, None), functools.partial(lambda by, kept, g: (g * by,), 0.5))


def nets(c=1.0, by=3.0, name=lambda function: function):
    """Return functions of every construct that holds another function; all depend on ``c`` and on ``by`` inside it."""
    mesh = jax.make_mesh((1,), ("i",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("i")
    constant = np.full(4, by, np.float32)

    def kernel(x_ref, out_ref):
        out_ref[...] = x_ref[...] * by + c

    return {
        "plain": name(lambda x: x * by + c),
        "jit": name(jax.jit(lambda x: x * constant + c)),
        "cond": name(lambda x: lax.cond(x[0] > c, lambda x: x * by, lambda x: -x * constant, x)),
        "scan": name(lambda x: lax.scan(lambda total, a: (total + a * c, a * by), 0.0, x)),
        "while": name(lambda x: lax.while_loop(lambda x: x[0] < c, lambda x: x + constant, x)),
        "checkpoint": name(jax.checkpoint(lambda x: jnp.sin(x * constant) + c)),
        "custom_jvp": name(lambda x: jax.nn.relu(x * constant - c)),
        "custom_vjp": name(lambda x: halved(x * by) + c),
        "gradient": name(jax.grad(lambda x: (halved(x * by) ** 2 * c).sum())),
        "vmap": name(jax.vmap(lambda a: lax.fori_loop(0, 3, lambda i, a: a * by + c, a))),
        "shard_map": name(
            jax.shard_map(lambda x: x * by + c, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        ),
        "pallas_call": name(
            lambda x: pallas.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct((4,), jnp.float32), interpret=True)(x)
        ),
        "random": name(lambda x: x + c * jax.random.normal(jax.random.key(int(by)), x.shape)),
        "platforms": name(lambda x: lax.platform_dependent(x, cpu=lambda x: x * by, default=lambda x: x * c)),
    }


KINDS = list(nets())


def renamed(function):
    """Return the same function under another name, from another line."""
    source = "\n\ndef another(unlike):\n    return function(unlike)\n"
    space = {"function": function}
    exec(compile(source, "elsewhere.py", "exec"), space)
    return space["another"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_lines_of_functions_do_not_count_and_each_constant_in_them_does(kind):
    first, again, another = (of(made[kind]) for made in (nets(), nets(), nets(name=renamed)))
    assert first == again == another
    assert len({first, of(nets(c=2.0)[kind]), of(nets(by=5.0)[kind])}) == 3


def test_functions_of_different_kinds_differ():
    prints = [of(function) for function in nets().values()]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    "functions",
    [
        [lambda x: x + 1, lambda x: x - 1, lambda x: 1 - x],
        [lambda x: x + x.astype(jnp.bfloat16).astype(jnp.float32), lambda x: x + x],
        [lambda x: x[0] - x[1], lambda x: x[1] - x[0]],
        [lambda x: (x[0] + x[1]) + x[2], lambda x: x[0] + (x[1] + x[2])],
        [lambda x: x * 0.0, lambda x: x * -0.0, lambda x: x * np.float32("nan")],
        [lambda x: jnp.concatenate([x, X]), lambda x: jnp.concatenate([X, x])],
        [lambda x: (x, x + 1), lambda x: (x + 1, x)],
        [lambda x: x.reshape(2, 2), lambda x: x.reshape(2, 2).T],
        [lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), lambda x: lax.cond(x[0] > 0, jnp.cos, jnp.sin, x)],
        [lambda x, n=n: lax.scan(lambda c, _: (c * 2, None), x, None, length=n)[0] for n in (2, 3)],
        [lambda x, r=r: lax.scan(lambda c, a: (c + a, c), 0.0, x, reverse=r) for r in (False, True)],
        [lambda x: lax.scan(lambda c, a: (c + a, c), 0.0, x), lambda x: lax.scan(lambda c, a: (c + a, a), 0.0, x)],
        [lambda x: lax.scan(lambda c, _: ((c[1], c[0]), c), (x, x + 1), None, 2),
         lambda x: lax.scan(lambda c, _: ((c[0], c[1]), c), (x, x + 1), None, 2)],
        [lambda x, p=p: jnp.dot(x, x, precision=p) for p in ("highest", "default")],
        [lambda x, a=a: jnp.broadcast_to(x, (4, 4)).sum(a) for a in (0, 1)],
        [lambda x, c=c: x * np.array(c, np.float32) for c in ([1, 2, 3, 4], [1, 2, 4, 3])],
        [lambda x, s=s: jax.random.bits(jax.random.key(s)) for s in (0, 1)],
        [lambda x, impl=impl: jax.random.bits(jax.random.key(0, impl=impl)) for impl in ("threefry2x32", "rbg")],
    ],
)  # fmt: skip
def test_what_computes_something_else_differs(functions):
    prints = [of(function) for function in functions]
    assert len(set(prints)) == len(prints)


def test_arguments_of_other_shapes_and_types_differ():
    arguments = [jnp.zeros(4), jnp.zeros(5), jnp.zeros((4, 1)), jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.bfloat16)]
    assert len({of(lambda x: x, each) for each in arguments}) == len(arguments)


def test_a_loop_within_a_loop_tells_the_outer_value_from_the_inner():
    def nested(pick):
        inner = lambda outer, a: lax.scan(lambda c, b: (c, pick(outer, b)), 0.0, X * a)[1]
        return lambda x: lax.scan(lambda c, a: (c + 1, inner(c, a)), 0.0, x)[1]

    assert of(nested(lambda outer, b: outer)) != of(nested(lambda outer, b: b))
    assert of(nested(lambda outer, b: outer - b)) != of(nested(lambda outer, b: b - outer))


def test_the_order_of_writes_to_a_mutable_array_counts():
    def written(*values):
        def function(x):
            ref = jax.new_ref(x)
            for value in values:
                ref[0] = value
            return ref[...]

        return function

    assert of(written(1.0, 2.0)) == of(written(1.0, 2.0)) != of(written(2.0, 1.0))


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_in_which_independent_values_are_made_does_not_count(order):
    """As of a set of names, whose order is another in each process."""
    constants = {name: np.full(4, ord(name), np.float32) for name in "abcd"}

    def function(x):
        looped = lambda c, a: (c, {name: a * constants[name] for name in order})
        return {name: x @ constants[name] for name in order}, lax.scan(looped, 0.0, x)[1]

    def usual(x):
        looped = lambda c, a: (c, {name: a * constants[name] for name in "abcd"})
        return {name: x @ constants[name] for name in "abcd"}, lax.scan(looped, 0.0, x)[1]

    assert of(function) == of(usual)


def test_what_has_no_part_in_the_result_does_not_count():
    def printing(x):
        jax.debug.print("{}", x)
        jnp.sin(x)
        return x * 2

    assert of(printing) == of(lambda x: x * 2) == of(jax.jit(lambda x: x * 2))


@pytest.mark.parametrize("key", [jax.random.key, jax.random.PRNGKey, functools.partial(jax.random.key, impl="rbg")])
def test_keys_in_closures_count_by_their_value(key):
    first, again, other = (of(lambda x, kept=kept: jax.random.split(kept)) for kept in map(key, (1, 1, 2)))
    assert first == again != other


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int32", "uint8", "float16", "bfloat16", "float32", "float8_e4m3fn", "int4"]
)
def test_constants_of_every_type_count_by_their_value(dtype):
    made = [jnp.array(values, dtype) for values in ([0, 1, 0], [0, 1, 0], [1, 1, 0])]
    first, again, other = (of(lambda x, c=c: c) for c in made)
    assert first == again != other
    assert of(lambda x: np.zeros(0, np.float32)) != of(lambda x: np.zeros((0, 2), np.float32))


# ── Parameters that no primitive of JAX has ──────────────────────────────────────────────────────────────

unknown = Primitive("unknown")
unknown.def_abstract_eval(lambda x, **_: x)


class Box:
    """What JAX takes for a parameter, whatever is in it: it can be hashed."""

    def __init__(self, *held):
        self.held = held


def with_parameter(*values):
    return of(lambda x: unknown.bind(x, parameter=Box(*values)))


class Plain:
    """As users write classes: shown by its address."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self._cache = object()

    def method(self):
        return self.scale


class Circle(Plain):
    def __init__(self):
        super().__init__()
        self.me = self


@pytest.mark.parametrize(
    "make",
    [object, Plain, Circle, lambda: Plain().method, lambda: lambda x: x, lambda: functools.partial(lambda x: x, 1.0),
     lambda: repr(object()), lambda: (object(), [Plain()]), lambda: jax.jit(lambda x: x), lambda: np.array([Plain()]),
     lambda: frozenset([Plain]), io.StringIO, itertools.count, lambda: jax.random.key(0), lambda: X.sharding,
     lambda: jax.tree.structure({"a": 1}), lambda: jax.make_jaxpr(jnp.sin)(X), lambda: jax.ShapeDtypeStruct((1,), int)],
)  # fmt: skip
def test_parameters_count_by_no_address(make):
    kept = [make() for _ in range(3)]  # alive together, so that no two have an address in common
    assert len({with_parameter(value) for value in kept}) == 1


def test_parameters_count_by_their_value():
    values = [
        None, 0, 1, True, 1.0, -1.0, "a", b"a", "b", (1,), (2,), (1, 2), ((1,), 2), frozenset([1]), {"a": 1}, {"a": 2},
        {"b": 1}, Plain(1.0), Plain(2.0), functools.partial(max, 1), functools.partial(max, 2), np.float32(1),
        np.arange(2), np.arange(3), jnp.float32, np.dtype("int32"), PartitionSpec("i"), PartitionSpec(None, "i"),
        lax.Precision.HIGHEST, lax.Precision.DEFAULT, jax.ShapeDtypeStruct((1,), np.int32),
        jax.make_jaxpr(jnp.sin)(X), jax.make_jaxpr(jnp.cos)(X),
    ]  # fmt: skip
    prints = [with_parameter(value) for value in values]
    assert len(set(prints)) == len(prints)


texts = st.text(max_size=3)


@given(st.dictionaries(texts, st.integers()), st.sets(texts), st.randoms(use_true_random=False))
def test_the_order_of_dictionaries_and_sets_does_not_count(dictionary, collection, random):
    items, members = list(dictionary.items()), list(collection)
    random.shuffle(items)
    random.shuffle(members)
    assert with_parameter(dictionary, collection) == with_parameter(dict(items), frozenset(members))


# ── In other processes ───────────────────────────────────────────────────────────────────────────────────

PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_fingerprint import closure_of_sets, nets, of
print(*map(of, nets().values()), of(closure_of_sets()))
"""


def closure_of_sets():
    """Return a function whose order of operations, and of a parameter's members, is another in each process."""
    names = {"weight", "bias", "scale", "shift"}
    constants = {name: np.full(4, len(name), np.float32) for name in names}
    return lambda x: (
        {name: x @ constants[name] for name in names},
        unknown.bind(x, names=frozenset(names), kept=Box({name: object() for name in names})),
    )


@pytest.fixture(scope="module")
def here():
    return " ".join([*map(of, nets().values()), of(closure_of_sets())])


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "1", "FORCE_COLOR": "1", "COLUMNS": "40", "JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS": "0"},
        {"PYTHONHASHSEED": "2", "NO_COLOR": "1", "COLUMNS": "400", "JAX_PPRINT_USE_COLOR": "0", "TERM": "dumb"},
    ],
)
def test_it_is_the_same_in_other_processes(environment, here):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == here.split()


def test_it_is_the_same_in_a_terminal(here):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # its end of the terminal is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait() == 0
    assert said.decode().split() == here.split()
