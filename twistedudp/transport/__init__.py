"""The UDP port that everything stands on."""
