"""What users write, validated with every error at once."""

from penstock.domain.redaction import keep_secrets, redact
from penstock.domain.specs import (
    FunctionSpec,
    LimitSpec,
    PipelineSpec,
    RateSpec,
    Settings,
    function_spec,
    limit_spec,
    pipeline_spec,
)

__all__ = [
    "FunctionSpec",
    "LimitSpec",
    "PipelineSpec",
    "RateSpec",
    "Settings",
    "function_spec",
    "keep_secrets",
    "limit_spec",
    "pipeline_spec",
    "redact",
]
