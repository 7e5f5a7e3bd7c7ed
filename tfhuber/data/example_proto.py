"""The protocol buffer `tf.train.Example`, declared here, since TensorFlow's own module imports all of it.

The bytes mean the same; the package's name is not part of them. Features are a list of entries here,
which is what a map is on the wire, so that their order does not depend on protobuf's implementation.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

__all__ = ["Example"]

_FILE = """
name: "tfhuber/example.proto" package: "tfhuber" syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type {
  name: "FloatList"
  field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "Feature"
  oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 type_name: ".tfhuber.BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 type_name: ".tfhuber.FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 type_name: ".tfhuber.Int64List" oneof_index: 0 }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 type_name: ".tfhuber.Features.FeatureEntry" label: LABEL_REPEATED }
  nested_type {
    name: "FeatureEntry"
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type_name: ".tfhuber.Feature" }
  }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type_name: ".tfhuber.Features" }
}
"""

_pool = descriptor_pool.DescriptorPool()
_pool.Add(text_format.Parse(_FILE, descriptor_pb2.FileDescriptorProto()))
Example = message_factory.GetMessageClass(_pool.FindMessageTypeByName("tfhuber.Example"))
