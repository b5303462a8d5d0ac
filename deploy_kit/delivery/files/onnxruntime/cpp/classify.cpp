// Classifies a frame with ONNX Runtime: classify MODEL.onnx FRAME.ppm [TOP]
//
// The library is loaded when the program starts, so that it is built without ONNX Runtime: ONNXRUNTIME_LIBRARY in the
// environment names the file, or CMake's option of the same name.
#include <dlfcn.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include "frame.h"
#include "ort.h"

#ifndef ONNXRUNTIME_LIBRARY
#define ONNXRUNTIME_LIBRARY "libonnxruntime.so.1"
#endif

const OrtApi* load_api() {
  const char* said = std::getenv("ONNXRUNTIME_LIBRARY");
  const char* file = said != nullptr ? said : ONNXRUNTIME_LIBRARY;
  void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw std::runtime_error(std::string(dlerror()) + "; set ONNXRUNTIME_LIBRARY to the library's path");
  }
  auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  const OrtApi* api = base != nullptr ? base()->GetApi(5) : nullptr;
  if (api == nullptr) {
    throw std::runtime_error(std::string(file) + ": not ONNX Runtime");
  }
  return api;
}

const OrtApi* api;

void expect(OrtStatus* status) {
  if (status != nullptr) {
    const std::string message = api->GetErrorMessage(status);
    api->ReleaseStatus(status);
    throw std::runtime_error(message);
  }
}

// Returns what a function of the API creates; it is released with its owner.
template <typename T, typename Create>
std::unique_ptr<T, void (*)(T*)> made(Create create, void (*release)(T*)) {
  T* created = nullptr;
  expect(create(&created));
  return {created, release};
}

std::unique_ptr<OrtSession, void (*)(OrtSession*)> open_session(OrtEnv* env, OrtSessionOptions* options,
                                                                const char* path) {
  const auto opened = [&](const char* exact) {
    expect(api->AddSessionConfigEntry(options, "session.x64quantprecision", exact));
    return made<OrtSession>([&](OrtSession** out) { return api->CreateSession(env, path, options, out); },
                            api->ReleaseSession);
  };
  // x64 without VNNI adds products of uint8 and int8 in 16 bits, which saturate unless the weights leave room, as the
  // file then says; with "1" it adds them in 32.
  std::ifstream file(path, std::ios::binary);
  const std::string data{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (data.find("deploykit.sums_fit_16_bits") != std::string::npos) {
    return opened("0");
  }
  try {
    return opened("1");
  } catch (const std::exception& error) {
    if (std::string(error.what()).find("replace the existing tensor") == std::string::npos) {
      throw;
    }
    return opened("0");  // weights that share a zero point cannot be computed so
  }
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: " << argv[0] << " MODEL.onnx FRAME.ppm [TOP]\n";
    return 2;
  }
  try {
    std::vector<bundle::Element> tensor = tensor_of(read_frame(argv[2]));
    api = load_api();
    auto env = made<OrtEnv>([](OrtEnv** out) { return api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "classify", out); },
                            api->ReleaseEnv);
    auto options = made<OrtSessionOptions>([](OrtSessionOptions** out) { return api->CreateSessionOptions(out); },
                                           api->ReleaseSessionOptions);
    auto session = open_session(env.get(), options.get(), argv[1]);
    auto memory = made<OrtMemoryInfo>(
        [](OrtMemoryInfo** out) { return api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, out); },
        api->ReleaseMemoryInfo);
    const std::int64_t shape[] = {bundle::kShape[0], bundle::kShape[1], bundle::kShape[2], bundle::kShape[3]};
    const auto element =
        bundle::kPixels ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    auto input = made<OrtValue>(
        [&](OrtValue** out) {
          return api->CreateTensorWithDataAsOrtValue(memory.get(), tensor.data(), tensor.size() * sizeof(tensor[0]),
                                                     shape, 4, element, out);
        },
        api->ReleaseValue);
    const OrtValue* inputs[] = {input.get()};
    auto output = made<OrtValue>(
        [&](OrtValue** out) {
          return api->Run(session.get(), nullptr, &bundle::kInput, inputs, 1, &bundle::kOutput, 1, out);
        },
        api->ReleaseValue);
    void* outputs = nullptr;
    expect(api->GetTensorMutableData(output.get(), &outputs));
    print_top(static_cast<const float*>(outputs), argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 5);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
