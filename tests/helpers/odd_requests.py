"""Requests at the edges of TensorFlow Serving's REST API, and a model with a signature for each of them."""

import gzip
import json
import socket
from pathlib import Path
from typing import NamedTuple

PREDICT = "/v1/models/wflw:predict"
GOOD = '{"instances": [[1, 2]]}'
TYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
OTHER_TYPES = ("bool", "string", "uint16", "float16", "bfloat16", "complex64")


class OddRequest(NamedTuple):
    """What is sent: HTTP's method, the path as it is, the body, and more headers."""

    method: str = "POST"
    path: str = PREDICT
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def ask(port: int, request: OddRequest) -> int:
    """The status of the answer; 0 where there is none."""
    headers = {"Host": "x", "Content-Length": len(request.body), "Connection": "close"}
    lines = [f"{name}: {value}" for name, value in (headers | dict(request.headers)).items()]
    head = "\r\n".join([f"{request.method} {request.path} HTTP/1.1", *lines, "", ""])
    with socket.create_connection(("localhost", port), timeout=20) as client:
        client.sendall(head.encode() + request.body)
        with client.makefile("rb") as answer:
            first = answer.readline()
            answer.read()
    return int(first.split()[1]) if first else 0


def save_types(directory: Path) -> None:
    """Writes a model whose signatures give back what they get: one of each type, and odd ones."""
    import tensorflow as tf

    def same(shape, dtype, output="y"):
        spec = tf.TensorSpec(shape, dtype, name="x")
        return tf.function(lambda x: {output: tf.identity(x)}, input_signature=[spec])

    def of(function, **inputs):
        specs = [tf.TensorSpec([None], dtype, name=name) for name, dtype in inputs.items()]
        return tf.function(function, input_signature=specs)

    signatures = {name: same([None], getattr(tf, name)) for name in (*TYPES, *OTHER_TYPES)}
    signatures |= {
        "serving_default": same([None, 2], tf.float32),
        "open": same(None, tf.int32),
        "scalar": same([], tf.float32),
        "image": same([None, 2, 2, 3], tf.uint8),
        "bytes": same([None], tf.string, "y_bytes"),
        "two": of(lambda a, b: {"s": a + 1, "d": 2 * b}, a=tf.float32, b=tf.float32),
        "lookup": of(lambda x: {"y": tf.gather([1.0, 2, 3], x)}, x=tf.int32),
        "uneven": of(lambda x: {"y": x, "z": tf.concat([x, x], 0)}, x=tf.float32),
        "sum": of(lambda x: {"y": tf.reduce_sum(x)}, x=tf.float32),
        "none": of(lambda: {"y": tf.constant([1.0])}),
    }
    module = tf.Module()
    for name, function in signatures.items():
        setattr(module, f"signature_{name}", function)
    tf.saved_model.save(module, str(directory), signatures=signatures)


def odd_requests() -> list[OddRequest]:
    """All of them; those that the local server leaves out on purpose are not among them."""
    return [*_addresses(), *_transports(), *_documents(), *_values(), *_nests(), *_rows()]


def _signature(name: str, rest: str) -> OddRequest:
    return OddRequest(body=f'{{"signature_name": "{name}", {rest}}}'.encode())


def _addresses() -> list[OddRequest]:
    model = "/v1/models/wflw"
    which = [
        *("", "/versions/1", "/versions/001", "/versions/2", "/versions/0", "/versions/-1"),
        *("/versions/x", "/versions/", "/versions/%31", "/versions/1.0", "/versions/+1"),
        *("/VERSIONS/1", "/Versions/1", "/labels/stable", "/labels/", "/LABELS/a", "/labels/a:b"),
        *(f"/versions/{n}" for n in (2**63 - 1, 2**63, 10**20)),
        *("/versions/1/labels/a", "/labels/a/versions/1", "/versions/1/versions/1", "/foo", "/"),
        *("?", "?x=1", "#a", ";a", "%20", "x", "/versions/1/", "/../wflw", "/metadata/versions/1"),
    ]
    ends = ["", "/metadata", "/METADATA", "/Metadata", "/metadata/", "/metadata?x", ":predict"]
    got = [f"{model}{each}{end}" for each in which for end in ends]
    got += ["/v1/models/x", "/v1/models/x/metadata", "/v1/models/x/versions/1", "/v1/models/WFLW"]
    got += ["/v1/models", "/v1/models/", "/v1/", "/v1", "/v1/foo", "/v2/models/wflw", "/healthz"]
    got += ["/V1/models/wflw", "/v1/MODELS/wflw", "/v1/models/w%66lw", "//v1/models/wflw", "/v1x"]
    got += [
        "/v1//models/wflw",
        "/v1/./models/wflw",
        "/v1/models/:",
        "/v1/models/a b",
        "/v1/models//",
    ]
    got += [f"/v1/models/wfl{letter}" for letter in "!$&'()*+,-.<>[]^`{|}~\"\\%é\x01\x7f"]
    got += [
        "/v1/models/%zz",
        "/v1/models/%4",
        "http://a:b@c:9/v1/models/wflw",
        "//x/v1/models/wflw",
    ]
    got += ["http://localhost:x/v1/models/wflw", "https:///v1/models/wflw", "x:/v1/models/wflw"]
    got += ["http://localhost/v1/models/wflw", "v1/models/wflw", "*", "/nowhere", "/monitoring"]
    got += [f"/monitoring/prometheus/metrics{end}" for end in ("", "/", "?x=1")]
    methods = [":predict", ":PREDICT", ":Predict", ":predict/", ":predict?", ":predict?x=1", ":"]
    methods += ["", ":predictx", ":explain", "%3Apredict", ":predict:predict", ":predict%20", "/"]
    posted = [f"{model}{each}{end}" for each in which for end in methods]
    posted += ["/V1/models/wflw:predict", "/v1/Models/wflw:predict", "/v1/models/w%66lw:predict"]
    posted += ["/v1/models/x:predict", "/v1/models/x/labels/a:predict", "/v1/models:predict"]
    posted += [
        "/v1/models/x/versions/1:predict",
        "/v1/models/WFLW:predict",
        "/",
        "/nowhere",
        "/v1/",
    ]
    posted += ["//v1/models/wflw:predict", "/monitoring/prometheus/metrics", "/v1/models/:predict"]
    others = ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "Post", "FOO", "MKCOL"]
    places = [PREDICT, model, f"{model}/metadata", "/nowhere", "/monitoring/prometheus/metrics"]
    return [
        *(OddRequest("GET", path) for path in got),
        *(OddRequest(path=path, body=GOOD.encode()) for path in posted),
        *(OddRequest(method, path) for method in others for path in places),
    ]


def _transports() -> list[OddRequest]:
    body = GOOD.encode()
    types = ["text/plain", "application/json; charset=utf-16", "multipart/form-data", "", "x"]
    chunks = b"5\r\n" + body[:5] + b"\r\n%x;a=b\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n"
    plain = [(body, "Content-Type", each) for each in types]
    plain += [(body, "Content-Encoding", each) for each in ("gzip", "br", "identity")]
    plain += [(gzip.compress(body), "Content-Encoding", "gzip"), (body, "Accept", "text/html")]
    plain += [
        (body, "Accept-Encoding", "gzip"),
        (body, "Content-Length", "-1"),
        (body, "Transfer-Encoding", "x"),
    ]
    plain += [(body, "Content-Length", "x"), (body, "Expect", "100-continue")]
    encoded = [OddRequest(body=content, headers=((k, v),)) for content, k, v in plain[:-1]]
    chunked = (("Transfer-Encoding", "chunked"), ("Content-Length", ""))
    return [*encoded, OddRequest(body=chunks, headers=chunked[:1]), OddRequest(body=body[:0])]


def _documents() -> list[OddRequest]:
    around = [" ", "\n\n", " x", GOOD, "{", "}", "]", "\x00", "//c", "\ufeff", "x", "/*c*/", ","]
    texts = [*(GOOD + each for each in around), *(each + GOOD for each in around)]
    texts += ["", "   ", "{", "}", "[", "]", "{}", "[]", "null", "true", "1", '"x"', GOOD[:-1]]
    texts += ["{'instances': [[1, 2]]}", "{instances: [[1, 2]]}", '{"instances" [[1, 2]]}']
    texts += [GOOD[:-1] + each for each in (",}", ' "x": 1}', ', "": 1}', ', "x"}', "]", "//c\n}")]
    strings = [r"\ud800", r"\udc00", r"\ud83d\ude00", r"\u12", r"\x", r"\u0000", r"\\ud800", r"\/"]
    strings += ["\t", "\n", "\x01", "\x7f", "é"]
    texts += [f'{GOOD[:-1]}, "x": "{each}"}}' for each in strings]
    numbers = "01 +1 .5 5. 1e5 1E+5 1e -1 -0 - 0x10 1_0 NaN nan NAN Infinity -Infinity Inf -Inf inf"
    numbers += (
        " -NaN +Infinity infinity Infinit True tru 1e39 -1e39 1e308 1e309 1e400 -1e400 1e-400"
    )
    numbers += f' 1e-46 {"9" * 300} {"9" * 400} 0.{"9" * 5000} [1] [] {{}} null true "1" "NaN"'
    texts += [f'{{"instances": [[{number}, 2]]}}' for number in numbers.split()]
    names = ['""', "null", "1", '["a"]', "true", '"serving_default"', '"x"', '"INT32"', '"int32 "']
    texts += [f'{{"signature_name": {name}, {GOOD[1:]}' for name in names]
    texts += ['{"signature_name": "x", "signature_name": "int32", "instances": [1]}']
    texts += ['{"signature_name": "int32", "signature_name": "x", "instances": [1]}']
    texts += ['{"signature_name": "x"}', '{"signature_name": "x", "instances": []}']
    raw = [
        b"\xff" + GOOD.encode(),
        GOOD.encode("utf-16"),
        GOOD.encode("utf-16-le"),
        bytes(range(256)),
    ]
    raw += [GOOD[:-1].encode() + b', "x": "%s"}' % x for x in (b"\xff", b"\xc3", b"\xed\xa0\x80")]
    raw += [GOOD.encode() + b"\xff", GOOD.encode("utf-32"), gzip.compress(GOOD.encode())]
    return [OddRequest(body=text.encode()) for text in texts] + [OddRequest(body=r) for r in raw]


def _values() -> list[OddRequest]:
    powers = (7, 8, 15, 16, 24, 31, 32, 53, 63, 64)
    numbers = [str(sign * 2**k + more) for k in powers for sign in (1, -1) for more in (-1, 0, 1)]
    numbers += ["0", "-0", "1.0", "1.5", "-0.0", "1e2", "1435774380", "1e39", "1e400", "NaN"]
    numbers += ["-Infinity", "true", "null", '"1"', '""', "{}", '{"b64": "eA=="}', str(10**23)]
    found = [_signature(t, f'"instances": [{n}]') for t in (*TYPES, *OTHER_TYPES) for n in numbers]
    found += [
        _signature(t, f'"inputs": [{n}]') for t in (*TYPES, *OTHER_TYPES) for n in ("1", '"x"')
    ]
    texts = ["eA==", "eA", "eA=", "eA===", "_-_-", "+/+/", r"eA==\n", "e A==", "", "=", "====", "a"]
    texts += [
        "abc",
        "YQ==YQ==",
        "a=bc",
        "é",
        "eB==",
        r"eAAA\r\neAAA",
        "eA..",
        "YWI=YWI=",
        r"\u0065A==",
    ]
    leaves = [f'{{"b64": "{text}"}}' for text in texts]
    leaves += ['{"b64": 1}', '{"b64": ["eA=="]}', '{"b64": {"b64": "eA=="}}', '{"B64": "eA=="}']
    leaves += [
        '{"b64": "eA==", "x": 1}',
        r'"\ud800"',
        r'"\u0000"',
        '"é"',
        '["x"]',
        "1",
        "true",
        "null",
    ]
    forms = ['"instances": [%s]', '"inputs": [%s]', '"inputs": %s', '"instances": [{"x": %s}]']
    return found + [_signature("bytes", form % leaf) for leaf in leaves for form in forms]


def _nests() -> list[OddRequest]:
    values = [
        "1",
        "[]",
        "[1]",
        "[[]]",
        "[[1]]",
        "[[1], [2]]",
        "[[1], [2, 3]]",
        "[1, [2]]",
        "[[1], 2]",
    ]
    values += [
        "[[], []]",
        "[[], [1]]",
        "[[[], []], [[], []]]",
        '[{"x": 1}]',
        '{"x": 1}',
        '{"x": []}',
    ]
    values += [
        "null",
        "[null]",
        "[[1, 2, 3]]",
        "[[[1, 2]]]",
        '"x"',
        "{}",
        "[{}]",
        "true",
        "[[[[1]]]]",
    ]
    values += ["[" * n + "1" + "]" * n for n in (50, 255, 256, 300, 3000)]
    found = [
        _signature(name, f'"{key}": {value}')
        for name in ("serving_default", "int32", "open", "scalar", "image", "sum")
        for key in ("instances", "inputs")
        for value in values
    ]
    deep = ["[" * 3000, "[" * 100_000, '{"a": ' * 3000, "[" * 20_000 + "]" * 20_000]
    deep += [f'{{"x": {"[" * n}{"]" * n}, {GOOD[1:]}' for n in (500, 5000)]
    deep += [f'{{"x": {{"a": {"[" * 5000}{"]" * 5000}}}, {GOOD[1:]}']
    return found + [OddRequest(body=text.encode()) for text in deep]


def _rows() -> list[OddRequest]:
    rows = [
        '{"a": 1, "b": 2}',
        '{"a": 1}',
        '{"a": 1, "b": 2, "c": 3}',
        "1",
        "[1, 2]",
        '{"A": 1, "b": 2}',
    ]
    rows += [
        '{"a": [1], "b": 2}',
        '{"a": 1, "a": 2, "b": 1}',
        '{"a": 1, "b": "x"}',
        '{"b64": "eA=="}',
    ]
    columns = [
        '{"a": [1], "b": [2]}',
        '{"a": [1, 2], "b": [2]}',
        '{"a": [], "b": [2]}',
        '{"a": [1]}',
    ]
    columns += [
        '{"a": [1], "b": [2], "c": 3}',
        '{"a": 1, "b": 2}',
        "[1]",
        "1",
        '{"a": [1], "a": [1, 2]}',
    ]
    columns += ['{"a": [1], "b": [2], "a": [1, 2]}', '{"b64": "eA=="}', '{"a": [], "b": []}', "{}"]
    found = [_signature("two", f'"instances": [{row}]') for row in rows]
    found += [_signature("two", f'"instances": [{rows[0]}, {row}]') for row in rows]
    found += [_signature("two", f'"inputs": {column}') for column in columns]
    both = ['"instances": [[1, 2]], "inputs": [[1, 2]]', '"Instances": [[1, 2]]', '"examples": []']
    both += [
        '"inputs": [[1, 2]], "inputs": 1',
        '"inputs": "x", "inputs": [[1, 2]]',
        '"instances": []',
    ]
    both += [
        '"instances": {"x": [1, 2]}',
        '"instances": null',
        '"instances": "x"',
        '"inputs": null',
    ]
    found += [OddRequest(body=f"{{{each}}}".encode()) for each in both]
    for name in ("lookup", "uneven", "none", "sum", "__saved_model_init_op"):
        found += [_signature(name, f'"instances": [{n}]') for n in (0, 2, 3, -1)]
        found += [_signature(name, f'"inputs": [{n}]') for n in (0, 7)]
        found += [
            _signature(name, rest) for rest in ('"inputs": {}', '"x": 1', '"instances": [{}]')
        ]
    return found


def name_of(request: OddRequest) -> str:
    """The request in one short line."""
    return json.dumps([*request[:2], request.body[:120].decode("latin-1"), request.headers])
