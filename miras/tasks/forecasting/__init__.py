"""Forecasting of time series: tables, windows, the task, its errors and its baselines."""
