"""The address of Ray's dashboard, which accepts jobs. Imports nothing."""

PORT = 8265
#: The dashboard of a Ray on this machine, or behind a tunnel.
DASHBOARD = f"http://127.0.0.1:{PORT}"
