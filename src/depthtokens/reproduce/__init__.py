"""The paper's tables and the effects behind them."""
