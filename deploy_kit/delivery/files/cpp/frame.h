// One frame of the network's size: read as binary PGM or PPM, prepared, and its likeliest classes printed.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle.h"

// Reads uint8 pixels, height by width by channels, in RGB order.
inline std::vector<std::uint8_t> read_frame(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  std::size_t width = 0, height = 0, largest = 0;
  file >> kind >> width >> height >> largest;
  file.get();  // one white space ends the header
  if (!file || kind != (bundle::kChannels == 1 ? "P5" : "P6") || largest != 255) {
    throw std::runtime_error(path + ": expected a binary " + (bundle::kChannels == 1 ? "PGM" : "PPM") + " of 8 bits");
  }
  if (width != bundle::kWidth || height != bundle::kHeight) {
    throw std::runtime_error(path + ": expected " + std::to_string(bundle::kWidth) + "x" +
                             std::to_string(bundle::kHeight) + " px, found " + std::to_string(width) + "x" +
                             std::to_string(height));
  }
  std::vector<std::uint8_t> pixels(bundle::kHeight * bundle::kWidth * bundle::kChannels);
  if (!file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()))) {
    throw std::runtime_error(path + ": cut off");
  }
  return pixels;
}

// Returns the input: the pixels where the engine takes them, else channels first, (pixel / 255 - mean) / std. The frame
// fills every place of the batch.
inline std::vector<bundle::Element> tensor_of(const std::vector<std::uint8_t>& pixels) {
  const std::size_t area = bundle::kHeight * bundle::kWidth, one = bundle::kChannels * area;
  std::vector<bundle::Element> tensor(bundle::kBatch * one);
  if (bundle::kPixels) {
    std::copy(pixels.begin(), pixels.end(), tensor.begin());
  }
  for (std::size_t channel = 0; channel < (bundle::kPixels ? 0 : bundle::kChannels); ++channel) {
    const std::size_t from = bundle::kReversed ? bundle::kChannels - 1 - channel : channel;
    for (std::size_t i = 0; i < area; ++i) {
      const float value = static_cast<float>(pixels[i * bundle::kChannels + from]) / 255.0f;
      tensor[channel * area + i] =
          static_cast<bundle::Element>((value - bundle::kMean[channel]) / bundle::kStd[channel]);
    }
  }
  for (std::size_t place = 1; place < bundle::kBatch; ++place) {
    std::copy_n(tensor.begin(), one, tensor.begin() + static_cast<std::ptrdiff_t>(place * one));
  }
  return tensor;
}

// Prints the largest outputs: number, output, name.
inline void print_top(const float* outputs, std::size_t top) {
  std::vector<std::size_t> order(bundle::kClasses);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return outputs[a] > outputs[b]; });
  for (std::size_t rank = 0; rank < std::min(top, order.size()); ++rank) {
    const std::size_t index = order[rank];
    std::printf("%zu\t%.9g\t%s\n", index, static_cast<double>(outputs[index]),
                index < bundle::kNames ? bundle::kName[index] : "");
  }
}
