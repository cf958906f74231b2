"""The product used from pytest with pytest-twisted, as its users' tests do: a pytest run of their own."""
