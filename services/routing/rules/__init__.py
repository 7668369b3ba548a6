"""The distribution rules as a company keeps them: teams, versions, and clients' segments."""
