"""The local web page: server and jobs."""
