"""A client of TensorFlow Serving's APIs for landmark models: `python -m serving.client`."""

from serving.client.base import LandmarkClient, ServerError
from serving.client.rest import Client

__all__ = ["Client", "LandmarkClient", "ServerError"]
