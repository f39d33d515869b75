"""The verbs: check, forecast, cure and watch."""
