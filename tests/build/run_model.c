/* Runs a library of Kiln's through TVM's own virtual machine, on a device (or an emulator) without Python.
 *
 *     run_model MODEL.so INPUT OUTPUT DIM...
 *
 * INPUT holds float32 values of the shape DIM...; the first output of `main` is written to OUTPUT as it lies
 * in memory. Links with libtvm_ffi and libtvm_runtime, by their C interface alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

static void fail(const char* what) {
  TVMFFIObjectHandle error = NULL;
  TVMFFIErrorMoveFromRaised(&error);
  if (error != NULL) {
    TVMFFIErrorCell* cell = (TVMFFIErrorCell*)((char*)error + sizeof(TVMFFIObject));
    fprintf(stderr, "%s: %.*s\n", what, (int)cell->message.size, cell->message.data);
  } else {
    fprintf(stderr, "%s\n", what);
  }
  exit(1);
}

static TVMFFIAny of_int(int64_t value) {
  TVMFFIAny any = {0};
  any.type_index = kTVMFFIInt;
  any.v_int64 = value;
  return any;
}

static TVMFFIAny of_text(const char* text) {
  TVMFFIAny any = {0};
  any.type_index = kTVMFFIRawStr;
  any.v_c_str = text;
  return any;
}

static TVMFFIAny call(TVMFFIObjectHandle function, TVMFFIAny* args, int count, const char* what) {
  TVMFFIAny result = {0};
  if (TVMFFIFunctionCall(function, args, count, &result) != 0) fail(what);
  return result;
}

static TVMFFIAny call_global(const char* name, TVMFFIAny* args, int count) {
  TVMFFIByteArray bytes = {name, strlen(name)};
  TVMFFIObjectHandle function = NULL;
  if (TVMFFIFunctionGetGlobal(&bytes, &function) != 0 || function == NULL) fail(name);
  return call(function, args, count, name);
}

static TVMFFIAny call_method(TVMFFIAny module, const char* name, TVMFFIAny* args, int count) {
  TVMFFIAny query[3] = {module, of_text(name), of_int(0)};
  query[2].type_index = kTVMFFIBool;
  TVMFFIAny function = call_global("ffi.ModuleGetFunction", query, 3);
  if (function.type_index != kTVMFFIFunction) fail(name);
  return call(function.v_obj, args, count, name);
}

static DLTensor* tensor_of(TVMFFIAny any) {
  return (DLTensor*)((char*)any.v_obj + sizeof(TVMFFIObject));
}

static size_t bytes_of(const DLTensor* tensor) {
  size_t bytes = (tensor->dtype.bits * tensor->dtype.lanes + 7) / 8;
  for (int i = 0; i < tensor->ndim; ++i) bytes *= tensor->shape[i];
  return bytes;
}

static void release(DLManagedTensor* managed) { (void)managed; }

int main(int argc, char** argv) {
  if (argc < 4) fail("usage: run_model MODEL.so INPUT OUTPUT DIM...");
  int64_t shape[8];
  DLManagedTensor managed = {0};
  DLTensor* input = &managed.dl_tensor;
  input->ndim = argc - 4;
  input->shape = shape;
  input->device.device_type = kDLCPU;
  input->dtype.code = kDLFloat;
  input->dtype.bits = 32;
  input->dtype.lanes = 1;
  for (int i = 0; i < input->ndim; ++i) shape[i] = atoll(argv[4 + i]);
  size_t bytes = bytes_of(input);
  input->data = aligned_alloc(64, (bytes + 63) / 64 * 64);
  managed.deleter = release;
  FILE* file = fopen(argv[2], "rb");
  if (file == NULL || fread(input->data, 1, bytes, file) != bytes) fail("cannot read the input");
  fclose(file);

  TVMFFIAny path = of_text(argv[1]);
  TVMFFIAny library = call_global("ffi.ModuleLoadFromFile", &path, 1);
  TVMFFIAny machine = call_method(library, "vm_load_executable", NULL, 0);
  TVMFFIAny device[3] = {of_int(kDLCPU), of_int(0), of_int(2 /* pooled memory */)};
  call_method(machine, "vm_initialization", device, 3);
  TVMFFIAny argument = {0};
  argument.type_index = kTVMFFITensor;
  TVMFFIObjectHandle handle = NULL;
  if (TVMFFITensorFromDLPack(&managed, 64, 1, &handle) != 0) fail("the input is no tensor");
  argument.v_obj = (TVMFFIObject*)handle;
  TVMFFIAny outputs = call_method(machine, "main", &argument, 1);
  TVMFFIAny pick[2] = {outputs, of_int(0)};
  TVMFFIAny output = call_global("ffi.ArrayGetItem", pick, 2);
  DLTensor* tensor = tensor_of(output);
  file = fopen(argv[3], "wb");
  if (file == NULL || fwrite(tensor->data, 1, bytes_of(tensor), file) != bytes_of(tensor)) {
    fail("cannot write the output");
  }
  fclose(file);
  fflush(NULL);
  _Exit(0);
}
