// The part of ONNX Runtime's C API that classify.cpp calls, for machines without its headers, e.g. with the Python wheel
// alone. Where <onnxruntime_c_api.h> is found, that is used instead.
//
// The API is a table of functions to which each version appends. The first 102 are version 1, which every release has
// at the same places (onnxruntime_c_api.cc asserts that the last one, ReleaseCustomOpDomain, has number 101);
// AddSessionConfigEntry came with version 5.
#pragma once
#if __has_include(<onnxruntime_c_api.h>)
#include <onnxruntime_c_api.h>
#else
#include <cstddef>
#include <cstdint>

struct OrtEnv;
struct OrtStatus;
struct OrtMemoryInfo;
struct OrtSession;
struct OrtValue;
struct OrtRunOptions;
struct OrtSessionOptions;
enum OrtLoggingLevel { ORT_LOGGING_LEVEL_ERROR = 3 };
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2 };
using OrtOther = void (*)();  // a function that is not called here

struct OrtApi {
  OrtOther before_GetErrorMessage[2];
  const char* (*GetErrorMessage)(const OrtStatus*);  // 2
  OrtStatus* (*CreateEnv)(OrtLoggingLevel, const char* name, OrtEnv**);  // 3
  OrtOther before_CreateSession[3];
  OrtStatus* (*CreateSession)(const OrtEnv*, const char* path, const OrtSessionOptions*, OrtSession**);  // 7
  OrtOther before_Run[1];
  OrtStatus* (*Run)(OrtSession*, const OrtRunOptions*, const char* const* inputs, const OrtValue* const* values,
                    std::size_t n_inputs, const char* const* outputs, std::size_t n_outputs, OrtValue** results);  // 9
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions**);  // 10
  OrtOther before_CreateTensorWithDataAsOrtValue[38];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, std::size_t n_bytes,
                                               const std::int64_t* shape, std::size_t rank, ONNXTensorElementDataType,
                                               OrtValue**);  // 49
  OrtOther before_GetTensorMutableData[1];
  OrtStatus* (*GetTensorMutableData)(OrtValue*, void**);  // 51
  OrtOther before_CreateCpuMemoryInfo[17];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo**);  // 69
  OrtOther before_ReleaseEnv[22];
  void (*ReleaseEnv)(OrtEnv*);  // 92
  void (*ReleaseStatus)(OrtStatus*);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo*);
  void (*ReleaseSession)(OrtSession*);
  void (*ReleaseValue)(OrtValue*);  // 96
  OrtOther before_ReleaseSessionOptions[3];
  void (*ReleaseSessionOptions)(OrtSessionOptions*);  // 100
  OrtOther ReleaseCustomOpDomain;
  OrtOther before_AddSessionConfigEntry[28];
  OrtStatus* (*AddSessionConfigEntry)(OrtSessionOptions*, const char* key, const char* value);  // 130
};
static_assert(offsetof(OrtApi, ReleaseCustomOpDomain) / sizeof(void*) == 101, "version 1 of the API has 102 functions");

struct OrtApiBase {
  const OrtApi* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};
#endif
