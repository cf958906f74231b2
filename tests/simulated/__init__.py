"""The whole system on the simulated network: thousands of seeds, what must hold in each, and bugs put back."""
