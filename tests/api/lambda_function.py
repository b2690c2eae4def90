"""Handlers as they are written for AWS Lambda; nothing in here knows of Penstock."""

import json
import logging
import os
from decimal import Decimal
from typing import Any

import botocore.session
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.shared.cookies import Cookie
from aws_lambda_powertools.utilities.typing import LambdaContext
from fastapi import FastAPI, Request
from mangum import Mangum

logger = logging.getLogger()
logger.setLevel(logging.INFO)
session = botocore.session.get_session()
dynamodb = session.create_client("dynamodb", region_name=os.environ.get("AWS_REGION", "eu-central-1"))
structured = Logger(service="orders")
app = APIGatewayHttpResolver()


def lambda_handler(event: Any, context: Any) -> Any:
    logger.info("Received %s", json.dumps(event))
    logger.debug("nobody asked for this")
    context.log("told by the context")
    return {"statusCode": 200, "body": json.dumps({"message": "hello"})}


def describe(event: Any, context: Any) -> Any:
    attributes = (
        "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "aws_request_id", "log_group_name",
        "log_stream_name", "client_context", "tenant_id",
    )  # fmt: skip
    told = {name: getattr(context, name) for name in attributes}
    told["identity"] = [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id]
    told["remaining"] = context.get_remaining_time_in_millis()
    told["variables"] = {key: value for key, value in os.environ.items() if "LAMBDA" in key or key == "_HANDLER"}
    told["region"] = dynamodb.meta.region_name
    return told


def prices(event: Any, context: Any) -> Any:
    return {"whole": Decimal(3), "exact": Decimal("19.99"), "large": Decimal("1e20"), "no": [Decimal("0.5")]}


def infinite(event: Any, context: Any) -> Any:
    return Decimal("Infinity") if event is None else Decimal(event)


@app.get("/orders/<number>")
def order(number: str) -> Any:
    return {"order": number, "page": app.current_event.query_string_parameters["page"]}


@app.post("/orders")
def make() -> Any:
    return Response(201, "application/json", app.current_event.body, cookies=[Cookie("seen", "yes")])


def gateway(event: Any, context: Any) -> Any:
    """Answer as the event says, or tell of it."""
    if "requestContext" not in event:
        return {"event": event}
    if event["rawPath"] == "/raises":
        raise RuntimeError("no luck")
    if event["rawPath"] == "/no-answer":
        return {"statusCode": 200, "body": {"not": "text"}}
    told = {key: event.get(key) for key in ("rawPath", "rawQueryString", "cookies", "isBase64Encoded", "body")}
    return {**told, "method": event["requestContext"]["http"]["method"], "request": context.aws_request_id}


async def coroutine(event: Any, context: Any) -> Any:
    return event


site = FastAPI()


@site.post("/files/{name}")
async def upload(name: str, request: Request) -> Any:
    return {"name": name, "bytes": len(await request.body()), "agent": request.headers["user-agent"]}


mangum = Mangum(site, lifespan="off")


@structured.inject_lambda_context
def route(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    structured.info("routing")
    return app.resolve(event, context)
