// A self-exiting file in C++:  predict model.onnx photo.ppm …
// The file:  offramp export my-model model.onnx --preprocess.  It leaves early by itself; there is nothing to do here.
// Build:     c++ -std=c++17 -I ONNXRUNTIME/include predict.cpp -L ONNXRUNTIME/lib -lonnxruntime -o predict
#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <vector>

#include <onnxruntime_cxx_api.h>

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::cerr << "usage: predict model.onnx photo.ppm ...\n";
    return 2;
  }
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "predict");
  Ort::Session session(environment, argv[1], Ort::SessionOptions{});
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<const char*, 1> inputs{"images"};
  const std::array<const char*, 3> outputs{"output", "exit", "score"};
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    std::string magic;
    int64_t width = 0, height = 0, largest = 0;
    if (!(file >> magic >> width >> height >> largest) || magic != "P6" || largest != 255) {
      std::cerr << argv[i] << " is no binary PPM picture\n";
      return 1;
    }
    file.ignore(1);
    std::vector<uint8_t> pixels(height * width * 3);
    file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
    const std::array<int64_t, 4> shape{1, height, width, 3};
    auto images = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
    auto found = session.Run(Ort::RunOptions{}, inputs.data(), &images, 1, outputs.data(), outputs.size());
    const float* output = found[0].GetTensorData<float>();
    const auto count = found[0].GetTensorTypeAndShapeInfo().GetElementCount();
    std::cout << argv[i] << ": class " << std::max_element(output, output + count) - output << ", exit "
              << found[1].GetTensorData<int64_t>()[0] << ", score " << found[2].GetTensorData<float>()[0] << "\n";
  }
} catch (const Ort::Exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
