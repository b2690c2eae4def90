"""What all tests share: Hypothesis judges what is computed, never how long a busy machine takes for it."""

from hypothesis import HealthCheck, settings

settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("penstock")
