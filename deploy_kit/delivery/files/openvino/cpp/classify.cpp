// Classifies a frame with OpenVINO: classify MODEL.xml FRAME.ppm [TOP]
#include <openvino/openvino.hpp>

#include <cstdlib>
#include <iostream>

#include "frame.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: " << argv[0] << " MODEL.xml FRAME.ppm [TOP]\n";
    return 2;
  }
  try {
    std::vector<bundle::Element> tensor = tensor_of(read_frame(argv[2]));
    ov::Core core;
    ov::CompiledModel model =
        core.compile_model(argv[1], "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                           ov::hint::inference_precision(ov::element::f32));  // its default differs between machines
    ov::InferRequest request = model.create_infer_request();
    const ov::Shape shape{bundle::kShape[0], bundle::kShape[1], bundle::kShape[2], bundle::kShape[3]};
    request.set_input_tensor(ov::Tensor(ov::element::from<bundle::Element>(), shape, tensor.data()));
    request.infer();
    print_top(request.get_output_tensor().data<float>(), argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 5);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
