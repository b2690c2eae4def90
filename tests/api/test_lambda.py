"""Code that was written for AWS Lambda runs unmodified: `lambda_function.py` knows of nothing else."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.api.serving import Server, bundle, until

CODE = Path(__file__).with_name("lambda_function.py")


@pytest.fixture(scope="module")
def lambdas(server: Server) -> Server:
    """A server with the functions of `lambda_function.py`, named and called as on AWS."""
    for function, handler in {"hello": "lambda_handler", "describe": "describe", "prices": "prices"}.items():
        deploy(server, function, f"lambda_function.{handler}", memory="256MiB", timeout="20s")
    deploy(server, "infinite", "lambda_function.infinite")
    deploy(server, "route", "src/lambda_function.route", env={"POWERTOOLS_LOG_LEVEL": "INFO"})
    return server


def deploy(server: Server, function: str, handler: str, **settings: Any) -> None:
    folder = "src/" if handler.startswith("src/") else ""
    written = quote(json.dumps({"handler": handler, **settings}))
    code = bundle({f"{folder}lambda_function.py": CODE.read_text()})
    answer = server.put(f"/v1/functions/{function}/code?settings={written}", code)
    assert answer.status == 200, answer.body


def said(server: Server, task: str) -> list[str]:
    """Return what a task has put out, in lines."""
    return "".join(line["text"] for line in server.get(f"/v1/logs?task={task}").json()["lines"]).splitlines()


def test_a_handler_is_named_as_on_aws_and_logs_as_there(lambdas: Server, name: str) -> None:
    lambdas.make(name, "hello")
    (task,) = lambdas.send(name, {"key": "value"})
    assert lambdas.wait(task)["result"] == {"statusCode": 200, "body": '{"message": "hello"}'}
    assert lambdas.get("/v1/functions/hello").json()["settings"]["handler"] == "lambda_function:lambda_handler"
    assert sorted(said(lambdas, task)) == ["INFO told by the context", '[INFO] root: Received {"key": "value"}']


def test_the_context_and_the_variables_are_those_of_aws(lambdas: Server) -> None:
    told = lambdas.post("/v1/functions/describe/invoke", {}).json()
    version = told["function_version"]
    assert 19_000 < told.pop("remaining") <= 20_000
    assert len(told.pop("aws_request_id")) == 16
    root = told["variables"].pop("LAMBDA_TASK_ROOT")
    assert Path(root, "lambda_function.py").is_file()
    assert told == {
        "function_name": "describe",
        "function_version": version,
        "invoked_function_arn": f"arn:aws:lambda:local:000000000000:function:describe:{version}",
        "memory_limit_in_mb": 256,
        "log_group_name": "/aws/lambda/describe",
        "log_stream_name": f"[{version}]",
        "client_context": None,
        "tenant_id": None,
        "identity": [None, None],
        "region": "eu-central-1",
        "variables": {
            "AWS_LAMBDA_FUNCTION_NAME": "describe",
            "AWS_LAMBDA_FUNCTION_VERSION": version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/describe",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"[{version}]",
            "_HANDLER": "lambda_function.describe",
        },
    }


def test_what_the_user_sets_goes_before_what_aws_would_set(lambdas: Server) -> None:
    env = {"AWS_LAMBDA_FUNCTION_NAME": "another", "AWS_REGION": "us-east-1"}
    deploy(lambdas, "placed", "lambda_function.describe", env=env)
    told = lambdas.post("/v1/functions/placed/invoke", {}).json()
    assert (told["variables"]["AWS_LAMBDA_FUNCTION_NAME"], told["region"]) == ("another", "us-east-1")
    assert (told["function_name"], told["memory_limit_in_mb"]) == ("placed", None)


def test_decimals_are_numbers_in_a_result(lambdas: Server) -> None:
    answer = lambdas.post("/v1/functions/prices/invoke")
    assert answer.body == b'{"whole":3,"exact":19.99,"large":100000000000000000000,"no":[0.5]}'


@pytest.mark.parametrize("value", ["Infinity", "NaN", "1e400", "1e999999999"])
def test_a_decimal_that_json_has_no_number_for_is_refused(lambdas: Server, value: str) -> None:
    answer = lambdas.post("/v1/functions/infinite/invoke", value)
    assert (answer.status, answer.json()["error"]["type"]) == (502, "NotJSON")


def test_powertools_route_an_event_of_api_gateway(lambdas: Server, name: str) -> None:
    lambdas.make(name, "route")
    http = {"method": "GET", "path": "/orders/17", "sourceIp": "127.0.0.1", "userAgent": "test", "protocol": "HTTP/1.1"}
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": "/orders/17", "rawQueryString": "page=2", "headers": {},
        "queryStringParameters": {"page": "2"}, "requestContext": {"http": http, "stage": "$default"}, "isBase64Encoded": False,
    }  # fmt: skip
    (task,) = lambdas.send(name, event)
    result = lambdas.wait(task)["result"]
    assert (result["statusCode"], json.loads(result["body"])) == (200, {"order": "17", "page": "2"})
    (line,) = [json.loads(line) for line in said(lambdas, task)]
    assert (line["message"], line["function_name"], line["function_request_id"]) == ("routing", "route", task)


# events of API Gateway ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def gateway(server: Server) -> Server:
    """A server with functions that take web requests as events."""
    for function, handler in {"gateway": "gateway", "routed": "route", "mangum": "mangum"}.items():
        deploy(server, function, f"lambda_function.{handler}", event="apigateway", max_parallel_requests=4)
    return server


def test_a_request_is_an_event(gateway: Server) -> None:
    answer = gateway.get("/web/gateway/a%20b?x=1&x=2", Cookie="c=1; d=2")
    told = answer.json()
    assert len(told.pop("request")) == 16
    assert told == {
        "rawPath": "/a b",
        "rawQueryString": "x=1&x=2",
        "cookies": ["c=1", "d=2"],
        "isBase64Encoded": False,
        "body": None,
        "method": "GET",
    }
    assert answer.headers["content-type"] == "application/json"
    sent = gateway.ask("PUT", "/web/gateway/", b"\x00\xff", {"Content-Type": "image/png"}).json()
    assert (sent["method"], sent["isBase64Encoded"], sent["body"]) == ("PUT", True, "AP8=")


def test_other_events_reach_the_same_handler(gateway: Server) -> None:
    assert gateway.post("/v1/functions/gateway/invoke", {"a": 1}).json() == {"event": {"a": 1}}


@pytest.mark.parametrize("path", ["raises", "no-answer"])
def test_what_is_no_answer_is_an_error_of_the_app(gateway: Server, path: str) -> None:
    failed = gateway.get(f"/web/gateway/{path}")
    assert failed.status == 500
    assert failed.json()["detail"].endswith("penstock logs --function gateway")
    words = {"raises": "RuntimeError: no luck", "no-answer": "a body that is dict"}[path]
    until(lambda: words in gateway.get("/v1/logs?function=gateway").body.decode())


def test_powertools_answer_web_requests(gateway: Server) -> None:
    assert gateway.get("/web/routed/orders/18?page=3").json() == {"order": "18", "page": "3"}
    made = gateway.ask("POST", "/web/routed/orders", b'{"n": 1}', {"Content-Type": "application/json"})
    assert (made.status, made.json()) == (201, {"n": 1})
    assert made.headers["set-cookie"].startswith("seen=yes")
    assert gateway.get("/web/routed/nowhere").status == 404


def test_an_app_behind_mangum_answers_web_requests(gateway: Server) -> None:
    body = bytes(range(256)) * 1000
    answer = gateway.ask("POST", "/web/mangum/files/a", body, {"Content-Type": "image/png", "User-Agent": "tests"})
    assert answer.json() == {"name": "a", "bytes": len(body), "agent": "tests"}


def test_a_body_that_is_too_long_for_an_event_is_refused(gateway: Server) -> None:
    answer = gateway.ask("POST", "/web/gateway/", bytes(10 * 1024 * 1024 + 1))
    assert answer.status == 413


def test_events_of_api_gateway_need_a_plain_handler(server: Server) -> None:
    written = quote(json.dumps({"handler": "lambda_function.coroutine", "event": "apigateway"}))
    answer = server.put(
        f"/v1/functions/refused/code?settings={written}", bundle({"lambda_function.py": CODE.read_text()})
    )
    assert answer.status == 422
    assert "is async; a handler of API Gateway's events is a plain def" in answer.json()["detail"]
