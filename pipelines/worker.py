"""A worker process of the local runner: Beam's own, but silent, as failures reach the launcher."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading


def _end_with_launcher(port: int) -> None:
    """End this process when the launcher closes the socket at that port, or has gone."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)  # Nothing is ever sent.
    os._exit(1)


if __name__ == "__main__":
    # An interrupt from the keyboard reaches the launcher as well, and ends this process with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_launcher, args=[int(sys.argv.pop())], daemon=True).start()
    logging.getLogger().setLevel(logging.CRITICAL)
    from apache_beam.runners.worker import sdk_worker_main

    # Beam's log starts anew here, and a lost launcher makes each of its threads print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sdk_worker_main.main(sys.argv)
