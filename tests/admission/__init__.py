"""Who is let in: the policy, the decision, and its twin in C."""
